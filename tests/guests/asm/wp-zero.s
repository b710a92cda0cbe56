# CR0.WP=0: the kernel writes to read-only pages. Then what ring 3 may do must still be exact.

.set READ_ONLY_USER, 0x40000000
.set READ_ONLY_KERNEL, 0x40001000
.set SAME_FRAME, 0x40002000             # another mapping of READ_ONLY_USER's frame, writable
.set FRAME_A, 0x01000000
.set FRAME_B, 0x01003000

guest_main:
    plan 26
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    movl $READ_ONLY_USER, %eax
    movl $FRAME_A | PTE_P | PTE_U, %edx
    call map_page
    movl $READ_ONLY_KERNEL, %eax
    movl $FRAME_B | PTE_P, %edx
    call map_page
    movl $SAME_FRAME, %eax
    movl $FRAME_A | PTE_P | PTE_W, %edx
    call map_page
    movl $0x11, SAME_FRAME

    try 1f
2:  movl $1, READ_ONLY_USER
1:  expect_trap "WP=1: the kernel may not write to a user's read-only page", VEC_PF, PF_P | PF_W, 2b, READ_ONLY_USER
    try 1f
2:  movl $1, READ_ONLY_KERNEL
1:  expect_trap "WP=1: nor to its own", VEC_PF, PF_P | PF_W, 2b, READ_ONLY_KERNEL
    call wp_off
    try 1f
    movl $0x22, READ_ONLY_USER
1:  expect_no_trap "WP=0: the kernel writes to a user's read-only page"
    check_eq "... and it arrives", SAME_FRAME, $0x22
    try 1f
    movl $0x33, READ_ONLY_KERNEL
1:  expect_no_trap "WP=0: and to its own"

    # Ring 3 after the kernel's write.
    run_ring3 3f
    expect_trap "ring 3 reads the page after that", VEC_LEAVE
    check_eq "... and sees the kernel's value", trap_ebx, $0x22
    run_ring3 4f
    expect_trap "... but may not write", VEC_PF, PF_P | PF_W | PF_U, 4f, READ_ONLY_USER
    run_ring3 5f
    expect_trap "ring 3 may not read the kernel's page", VEC_PF, PF_P | PF_U, 5f, READ_ONLY_KERNEL
    try 1f
    movl $0x44, READ_ONLY_USER
1:  expect_no_trap "WP=0: the kernel writes again"
    run_ring3 4f
    expect_trap "... ring 3 still may not", VEC_PF, PF_P | PF_W | PF_U, 4f, READ_ONLY_USER
    try 1f
    incl READ_ONLY_USER
1:  expect_no_trap "WP=0: the kernel reads and writes right after ring 3's fault"
    check_eq "... and it arrives", SAME_FRAME, $0x45

    # Alternate: kernel write, ring 3 read, a hundred times.
    xorl %esi, %esi
    xorl %edi, %edi
6:  movl %esi, READ_ONLY_USER
    run_ring3 3f
    cmpl %esi, trap_ebx
    je 7f
    incl %edi
7:  incl %esi
    cmpl $100, %esi
    jne 6b
    check_eq "100 times: the kernel writes, ring 3 reads", %edi, $0

    # The dirty bit is set by such a write.
    movl $READ_ONLY_USER, %eax
    movl $FRAME_A | PTE_P | PTE_U, %edx
    call map_page
    call pte_of
    movl %eax, %ebx
    movl READ_ONLY_USER, %eax
    movl (%ebx), %eax
    andl $PTE_A | PTE_D, %eax
    check_eq "a read sets the accessed bit alone", %eax, $PTE_A
    movl $0x55, READ_ONLY_USER
    movl (%ebx), %eax
    andl $PTE_A | PTE_D | PTE_W, %eax
    check_eq "the kernel's write sets the dirty bit, and leaves R/W 0", %eax, $PTE_A | PTE_D

    # Back to WP=1.
    call wp_on
    try 1f
2:  movl $1, READ_ONLY_USER
1:  expect_trap "WP=1 again: the kernel may not write", VEC_PF, PF_P | PF_W, 2b, READ_ONLY_USER
    try 1f
2:  movl $1, READ_ONLY_KERNEL
1:  expect_trap "... nor to its own page", VEC_PF, PF_P | PF_W, 2b, READ_ONLY_KERNEL
    run_ring3 3f
    expect_trap "... ring 3 reads", VEC_LEAVE
    check_eq "... the last value", trap_ebx, $0x55

    # WP=0 with the right taken away in the directory.
    movl $READ_ONLY_USER, %eax
    movl $FRAME_A | PTE_P | PTE_U | PTE_W, %edx
    call map_page
    movl page_directory, %ebx
    addl $(READ_ONLY_USER >> 22) * 4, %ebx
    andl $~PTE_W, (%ebx)
    movl %cr3, %eax
    movl %eax, %cr3
    try 1f
2:  movl $1, READ_ONLY_USER
1:  expect_trap "WP=1: read-only by the directory", VEC_PF, PF_P | PF_W, 2b, READ_ONLY_USER
    call wp_off
    try 1f
    movl $0x66, READ_ONLY_USER
1:  expect_no_trap "WP=0: the kernel writes"
    run_ring3 4f
    expect_trap "... ring 3 may not", VEC_PF, PF_P | PF_W | PF_U, 4f, READ_ONLY_USER
    run_ring3 3f
    check_eq "... but reads", trap_ebx, $0x66

    # A page table itself, read-only, written with WP=0.
    orl $PTE_W, (%ebx)
    movl $READ_ONLY_USER, %eax
    call pte_of
    movl %eax, %esi                     # where the entry is
    movl %eax, %edx
    andl $~0xfff, %edx
    movl %edx, %eax
    orl $PTE_P, %edx
    call map_page                       # the table is read-only for itself now
    movl $READ_ONLY_KERNEL, %eax
    call pte_of
    try 1f
    movl $FRAME_A | PTE_P, (%eax)
    invlpg READ_ONLY_KERNEL
1:  expect_no_trap "WP=0: the kernel writes to a read-only page table"
    movl READ_ONLY_KERNEL, %ebx
    check_eq "... and it counts", %ebx, $0x66
    ret

3:  movl READ_ONLY_USER, %ebx
    int $VEC_LEAVE
4:  movl $0x99, READ_ONLY_USER
    int $VEC_LEAVE
5:  movl READ_ONLY_KERNEL, %ebx
    int $VEC_LEAVE

wp_off:
    movl %cr0, %eax
    andl $~CR0_WP, %eax
    movl %eax, %cr0
    ret
wp_on:
    movl %cr0, %eax
    orl $CR0_WP, %eax
    movl %eax, %cr0
    ret
