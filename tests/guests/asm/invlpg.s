# What INVLPG and CR3 loads must make visible. What may be stale without them is not looked at.

.set WINDOW, 0x40000000
.set FRAME_A, 0x01000000
.set FRAME_B, 0x01002000
.set RW, PTE_P | PTE_W
.set RWU, PTE_P | PTE_W | PTE_U

# set_pte flags: writes the window's entry, nothing else.
.macro set_pte value
    movl pte, %eax
    movl $\value, (%eax)
.endm

guest_main:
    plan 23
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    movl $WINDOW, %eax
    movl $FRAME_B | RWU, %edx
    call map_page
    call pte_of
    movl %eax, pte
    movl $0xb0b0b0b0, WINDOW
    set_pte FRAME_A | RWU
    invlpg WINDOW
    movl $0xa0a0a0a0, WINDOW
    movl WINDOW, %ebx
    check_eq "the first frame", %ebx, $0xa0a0a0a0
    set_pte FRAME_B | RWU
    invlpg WINDOW
    movl WINDOW, %ebx
    check_eq "another frame after INVLPG", %ebx, $0xb0b0b0b0
    set_pte FRAME_A | RWU
    invlpg WINDOW + 0x123
    movl WINDOW, %ebx
    check_eq "INVLPG takes any address in the page", %ebx, $0xa0a0a0a0
    set_pte FRAME_B | RWU
    movl %cr3, %eax
    movl %eax, %cr3
    movl WINDOW, %ebx
    check_eq "another frame after a load of CR3", %ebx, $0xb0b0b0b0
    set_pte 0
    invlpg WINDOW
    try 1f
2:  movl WINDOW, %eax
1:  expect_trap "a removed page after INVLPG", VEC_PF, 0, 2b, WINDOW
    set_pte FRAME_A | RWU
    movl WINDOW, %ebx
    check_eq "a page that appears needs no INVLPG", %ebx, $0xa0a0a0a0
    set_pte FRAME_A | PTE_P | PTE_U
    invlpg WINDOW
    movl WINDOW, %ebx
    try 1f
2:  movl $1, WINDOW
1:  expect_trap "write right taken away", VEC_PF, PF_P | PF_W, 2b, WINDOW
    set_pte FRAME_A | RWU
    invlpg WINDOW
    try 1f
    movl $0xa1a1a1a1, WINDOW
1:  expect_no_trap "... given back"
    run_ring3 3f
    expect_trap "ring 3 reads", VEC_LEAVE
    set_pte FRAME_A | RW
    invlpg WINDOW
    run_ring3 3f
    expect_trap "user right taken away", VEC_PF, PF_P | PF_U, 3f, WINDOW
    movl WINDOW, %ebx
    check_eq "... the kernel still reads", %ebx, $0xa1a1a1a1
    set_pte FRAME_A | RWU
    invlpg WINDOW
    run_ring3 3f
    check_eq "... given back", trap_ebx, $0xa1a1a1a1

    # The table under a directory entry is exchanged. INVLPG drops what was cached of the directory, too.
    call alloc_frame
    movl %eax, %esi
    movl $FRAME_B | RWU, (%esi)
    movl page_directory, %ebx
    movl (WINDOW >> 22) * 4(%ebx), %edi
    leal RWU(%esi), %eax
    movl %eax, (WINDOW >> 22) * 4(%ebx)
    invlpg WINDOW
    movl WINDOW, %eax
    check_eq "another table after INVLPG", %eax, $0xb0b0b0b0
    movl %edi, (WINDOW >> 22) * 4(%ebx)
    movl %cr3, %eax
    movl %eax, %cr3
    movl WINDOW, %eax
    check_eq "the old table after a load of CR3", %eax, $0xa1a1a1a1
    andl $~PTE_W, (WINDOW >> 22) * 4(%ebx)
    invlpg WINDOW
    try 1f
2:  movl $1, WINDOW
1:  expect_trap "write right taken away in the directory", VEC_PF, PF_P | PF_W, 2b, WINDOW
    orl $PTE_W, (WINDOW >> 22) * 4(%ebx)
    invlpg WINDOW
    movl $0, (WINDOW >> 22) * 4(%ebx)
    invlpg WINDOW
    try 1f
2:  movl WINDOW, %eax
1:  expect_trap "the table removed", VEC_PF, 0, 2b, WINDOW
    movl %edi, (WINDOW >> 22) * 4(%ebx)
    movl WINDOW, %eax
    check_eq "... and back without INVLPG", %eax, $0xa1a1a1a1

    # INVLPG of one page does not disturb another; of a page that is not there it does nothing.
    try 1f
    invlpg 0x70000000
    invlpg 0xfffff000
1:  expect_no_trap "INVLPG of missing pages"

    # Many pages changed, one by one.
    xorl %esi, %esi
    movl $WINDOW + 0x10000, %ebx
4:  movl %esi, %edx
    andl $1, %edx
    shll $13, %edx
    addl $FRAME_A + RWU, %edx
    movl %ebx, %eax
    call map_page
    addl $4096, %ebx
    incl %esi
    cmpl $256, %esi
    jne 4b
    call sum_pairs
    check_eq "256 pages of two frames", %edi, $0
    movl $WINDOW + 0x10000, %eax
    call pte_of
    movl %eax, %ebx
    xorl %esi, %esi
5:  xorl $0x2000, (%ebx, %esi, 4)       # exchange the frames
    movl %esi, %eax
    shll $12, %eax
    invlpg WINDOW + 0x10000(%eax)
    incl %esi
    cmpl $256, %esi
    jne 5b
    movl WINDOW + 0x10000, %ecx
    check_eq "frames exchanged under 256 pages", %ecx, $0xb0b0b0b0
    call sum_pairs
    check_eq "... all of them", %edi, $0

    # Code: a page of instructions is replaced.
    set_pte FRAME_A | RWU
    invlpg WINDOW
    movl $0xc301b0, WINDOW + 0x40       # movb $1, %al; ret
    set_pte FRAME_B | RWU
    invlpg WINDOW
    movl $0xc302b0, WINDOW + 0x40
    movl $WINDOW + 0x40, %ebx
    call *%ebx
    movzbl %al, %esi
    set_pte FRAME_A | RWU
    invlpg WINDOW
    call *%ebx
    movzbl %al, %eax
    check_eq "code of the second frame", %esi, $2
    check_eq "code of the first frame after INVLPG", %eax, $1
    ret
3:  movl WINDOW, %ebx
    int $VEC_LEAVE

# EDI: 0 if of all the 128 pairs of pages each has one page of each frame.
sum_pairs:
    xorl %edi, %edi
    xorl %ecx, %ecx
1:  movl WINDOW + 0x10000(%ecx), %eax
    addl WINDOW + 0x11000(%ecx), %eax
    subl $0x52525251, %eax              # 0xb0b0b0b0 + 0xa1a1a1a1
    orl %eax, %edi
    addl $0x2000, %ecx
    cmpl $0x100000, %ecx
    jne 1b
    ret

.bss
.balign 4
pte: .space 4
