# 4 MiB pages: use, rights, A/D, splitting and joining, page tables inside them, and CR4.PSE off.

.set LARGE, 0x40000000
.set FRAME, 0x01000000                  # 4 MiB of memory, aligned
.set FLAGS, PTE_P | PTE_W | PTE_U | PDE_PS
.set AD, PTE_A | PTE_D

guest_main:
    plan 30
    movl %cr4, %eax
    orl $CR4_PSE, %eax
    movl %eax, %cr4
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    movl page_directory, %ebp
    addl $(LARGE >> 22) * 4, %ebp       # the large page's entry

    movl $FRAME | FLAGS, (%ebp)
    movl $0x11, LARGE
    movl $0x22, LARGE + 0x3ffffc
    movl $0x33, LARGE + 0x123454
    # The same memory through small pages.
    movl $0x50000000, %eax
    movl $FRAME | PTE_P | PTE_W, %edx
    call map_page
    movl $0x50001000, %eax
    movl $FRAME + 0x3ff000 | PTE_P | PTE_W, %edx
    call map_page
    movl $0x50002000, %eax
    movl $FRAME + 0x123000 | PTE_P | PTE_W, %edx
    call map_page
    movl 0x50000000, %ebx
    check_eq "a large page: its first word", %ebx, $0x11
    movl 0x50001ffc, %ebx
    check_eq "... its last word", %ebx, $0x22
    movl 0x50002454, %ebx
    check_eq "... one in the middle", %ebx, $0x33

    movl (%ebp), %eax
    andl $AD, %eax
    check_eq "a write has set A and D of the directory entry", %eax, $AD
    andl $~AD, (%ebp)
    invlpg LARGE
    movl LARGE + 0x200000, %eax
    movl (%ebp), %eax
    andl $AD, %eax
    check_eq "a read sets A alone", %eax, $PTE_A
    movl $0, LARGE + 0x300000
    movl (%ebp), %eax
    andl $AD, %eax
    check_eq "a write elsewhere in the page sets D", %eax, $AD

    # Rights.
    movl $FRAME | (FLAGS & ~PTE_W), (%ebp)
    invlpg LARGE
    try 1f
2:  movl $1, LARGE + 0x5678
1:  expect_trap "read-only: a write faults", VEC_PF, PF_P | PF_W, 2b, LARGE + 0x5678
    run_ring3 3f
    expect_trap "... ring 3 reads", VEC_LEAVE
    movl $FRAME | (FLAGS & ~PTE_U), (%ebp)
    invlpg LARGE
    run_ring3 3f
    expect_trap "supervisor: ring 3 may not read", VEC_PF, PF_P | PF_U, 3f, LARGE + 0x123454
    try 1f
    movl $0x44, LARGE + 0x123454
1:  expect_no_trap "... the kernel writes"
    movl $FRAME | (FLAGS & ~PTE_P), (%ebp)
    invlpg LARGE
    try 1f
2:  movl LARGE + 0x9000, %eax
1:  expect_trap "absent: a read faults", VEC_PF, 0, 2b, LARGE + 0x9000

    # Split: a table with the same frames, then changes in it.
    call alloc_frame
    movl %eax, %esi
    movl $FRAME | PTE_P | PTE_W | PTE_U, %edx
    xorl %ecx, %ecx
1:  movl %edx, (%esi, %ecx, 4)
    addl $4096, %edx
    incl %ecx
    cmpl $1024, %ecx
    jne 1b
    leal PTE_P | PTE_W | PTE_U(%esi), %eax
    movl %eax, (%ebp)
    movl %cr3, %eax
    movl %eax, %cr3
    movl LARGE + 0x123454, %ebx
    check_eq "split: the same data", %ebx, $0x44
    movl $0, 0x123 * 4(%esi)
    invlpg LARGE + 0x123000
    try 1f
2:  movl LARGE + 0x123454, %eax
1:  expect_trap "split: one small page removed", VEC_PF, 0, 2b, LARGE + 0x123454
    movl LARGE + 0x3ffffc, %ebx
    check_eq "... the others are there", %ebx, $0x22
    # Join again.
    movl $FRAME | FLAGS, (%ebp)
    movl %cr3, %eax
    movl %eax, %cr3
    movl LARGE + 0x123454, %ebx
    check_eq "joined: the removed page is back", %ebx, $0x44
    movl (%ebp), %eax
    andl $AD, %eax
    check_eq "... and A is set anew", %eax, $PTE_A
    # The former table is plain memory now.
    movl $0x77, (%esi)
    movl LARGE, %ebx
    check_eq "joined: the former table does not count", %ebx, $0x11

    # Move the large page to another frame.
    movl $0x01400000 | FLAGS, (%ebp)
    invlpg LARGE
    movl $0x99, LARGE
    movl $FRAME | FLAGS, (%ebp)
    invlpg LARGE + 0x2345
    movl LARGE, %ebx
    check_eq "another frame and back", %ebx, $0x11

    call tables_inside
    call without_pse
    ret
3:  movl LARGE + 0x123454, %ebx
    int $VEC_LEAVE

# Memory from 4 to 8 MiB, where all page tables are, becomes one large page; then tables are changed through it.
tables_inside:
    movl page_directory, %ebx
    movl 4(%ebx), %edi                  # the table that maps these 4 MiB
    movl $0x00400000 | FLAGS, 4(%ebx)
    movl %cr3, %eax
    movl %eax, %cr3
    try 1f
    movl $0x50000000, %eax
    movl $FRAME + 0x3ff000 | PTE_P | PTE_W, %edx
    call map_page
1:  expect_no_trap "page tables inside a large page: one is changed through it"
    movl 0x50000ffc, %esi
    check_eq "... and the change counts", %esi, $0x22
    movl $0x60000000, %eax              # a new table, made inside the large page
    movl $FRAME + 0x123000 | PTE_P | PTE_W, %edx
    call map_page
    movl 0x60000454, %esi
    check_eq "... a new table is made inside it", %esi, $0x44
    movl %ebx, %eax
    movl (LARGE >> 22) * 4(%eax), %esi
    movl $0, (LARGE >> 22) * 4(%eax)    # the directory itself is inside, too
    movl %cr3, %eax
    movl %eax, %cr3
    try 1f
2:  movl LARGE, %eax
1:  expect_trap "... the directory is changed inside it", VEC_PF, 0, 2b, LARGE
    movl %esi, (LARGE >> 22) * 4(%ebx)
    movl %edi, 4(%ebx)                  # small pages again
    movl %cr3, %eax
    movl %eax, %cr3
    movl $0x50000000, %eax
    movl $FRAME | PTE_P | PTE_W, %edx
    call map_page
    movl 0x50000000, %esi
    check_eq "and through small pages again", %esi, $0x11
    ret

# With CR4.PSE=0 the PS bit means nothing: the entry points to a table.
without_pse:
    call alloc_frame
    movl %eax, %esi
    movl $FRAME + 0x123000 | PTE_P | PTE_W | PTE_U, (%esi)
    leal FLAGS(%esi), %eax
    movl %cr4, %edx
    andl $~CR4_PSE, %edx
    movl %edx, %cr4
    movl %eax, (%ebp)
    movl %cr3, %eax
    movl %eax, %cr3
    movl LARGE + 0x454, %ebx
    check_eq "PSE off: an entry with PS points to a table", %ebx, $0x44
    movl (%esi), %eax
    andl $AD, %eax
    check_eq "... whose entry gets its A", %eax, $PTE_A
    try 1f
2:  movl LARGE + 0x1000, %eax
1:  expect_trap "... and whose other pages are absent", VEC_PF, 0, 2b, LARGE + 0x1000
    # Turning PSE on makes the same kind of entry a large page, and drops what is cached.
    movl $FRAME | FLAGS, (%ebp)
    movl %cr4, %edx
    orl $CR4_PSE, %edx
    movl %edx, %cr4
    movl LARGE, %ebx
    check_eq "PSE on: the entry is a large page", %ebx, $0x11
    movl LARGE + 0x123454, %ebx
    check_eq "... all of it", %ebx, $0x44
    # All of memory in large pages, page by page checked against small ones.
    movl $0x01400000 | FLAGS, 4(%ebp)
    xorl %ecx, %ecx
1:  movl %ecx, LARGE + 0x400000(%ecx)
    addl $4096, %ecx
    cmpl $0x400000, %ecx
    jne 1b
    xorl %edi, %edi
    xorl %ecx, %ecx
1:  movl LARGE + 0x400000(%ecx), %eax
    subl %ecx, %eax
    orl %eax, %edi
    addl $4096, %ecx
    cmpl $0x400000, %ecx
    jne 1b
    check_eq "two large pages side by side", %edi, $0
    movl LARGE, %ebx
    check_eq "... and apart", %ebx, $0x11
    ret
