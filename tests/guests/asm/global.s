# Global pages: what INVLPG, CR4.PGE and CR3 loads must make visible. That a load of CR3 keeps them is allowed, not required.

.set WINDOW, 0x40000000
.set OTHER, WINDOW + 0x1000
.set FRAME_A, 0x01000000
.set FRAME_B, 0x01002000
.set GLOBAL, 0x100
.set CR4_PGE, 0x80
.set RW, PTE_P | PTE_W
.set ROUNDS, 64

# set_pte offset, flags: writes the entry of the window's page, or with offset 4 that of the other page; nothing else.
.macro set_pte offset, value
    movl pte, %eax
    movl $\value, \offset(%eax)
.endm

.macro load_cr3
    movl %cr3, %eax
    movl %eax, %cr3
.endm

guest_main:
    plan 14
    movl $PTE_W, %edx
    call paging_identity
    call paging_on
    movl %cr4, %eax
    orl $CR4_PGE, %eax
    movl %eax, %cr4
    movl $WINDOW, %eax
    movl $FRAME_A | RW, %edx
    call map_page
    call pte_of
    movl %eax, pte
    set_pte 4, FRAME_B | RW
    invlpg OTHER
    movl $0xa0a0a0a0, WINDOW
    movl $0xb0b0b0b0, OTHER
    set_pte 0, FRAME_A | RW | GLOBAL
    set_pte 4, FRAME_A | RW
    invlpg WINDOW
    invlpg OTHER
    movl WINDOW, %ebx
    check_eq "a global page", %ebx, $0xa0a0a0a0
    movl OTHER, %ebx
    check_eq "and another one", %ebx, $0xa0a0a0a0
    set_pte 4, FRAME_B | RW
    load_cr3
    movl OTHER, %ebx
    check_eq "a load of CR3 shows the other frame of a page that is not global", %ebx, $0xb0b0b0b0
    movl WINDOW, %ebx
    check_eq "... the global page is as it was", %ebx, $0xa0a0a0a0
    set_pte 0, FRAME_B | RW | GLOBAL
    invlpg WINDOW
    movl WINDOW, %ebx
    check_eq "INVLPG drops a global page", %ebx, $0xb0b0b0b0
    set_pte 0, FRAME_A | RW | GLOBAL
    movl %cr4, %ecx
    xorl $CR4_PGE, %ecx
    movl %ecx, %cr4
    movl WINDOW, %ebx
    check_eq "clearing CR4.PGE drops it", %ebx, $0xa0a0a0a0
    set_pte 0, FRAME_B | RW | GLOBAL
    load_cr3
    movl WINDOW, %ebx
    check_eq "G means nothing without CR4.PGE", %ebx, $0xb0b0b0b0
    set_pte 0, FRAME_A | RW | GLOBAL
    xorl $CR4_PGE, %ecx
    movl %ecx, %cr4
    movl WINDOW, %ebx
    check_eq "setting CR4.PGE drops everything", %ebx, $0xa0a0a0a0
    set_pte 0, FRAME_A | PTE_P | GLOBAL
    invlpg WINDOW
    load_cr3
    movl WINDOW, %ebx
    try 1f
2:  movl $1, WINDOW
1:  expect_trap "no right to write outlives INVLPG", VEC_PF, PF_P | PF_W, 2b, WINDOW
    set_pte 0, 0
    invlpg WINDOW
    try 1f
2:  movl WINDOW, %eax
1:  expect_trap "a removed page", VEC_PF, 0, 2b, WINDOW
    set_pte 0, FRAME_B | RW
    movl WINDOW, %ebx
    check_eq "a page that appears needs no INVLPG", %ebx, $0xb0b0b0b0
    set_pte 0, FRAME_A | RW
    load_cr3
    movl WINDOW, %ebx
    check_eq "it is global no longer", %ebx, $0xa0a0a0a0

    # Two address spaces that differ in the page that is not global alone.
    set_pte 0, FRAME_A | RW | GLOBAL
    set_pte 4, FRAME_A | RW
    call alloc_frame
    movl %eax, second
    movl %eax, %edi
    movl pte, %esi
    andl $~4095, %esi
    movl $1024, %ecx
    rep movsl
    movl second, %eax
    movl $FRAME_B | RW, ((OTHER >> 12) & 1023) * 4(%eax)
    call alloc_frame
    movl %eax, %ebp
    movl %eax, %edi
    movl page_directory, %esi
    movl $1024, %ecx
    rep movsl
    movl second, %eax
    orl $RW, %eax
    movl %eax, (WINDOW >> 22) * 4(%ebp)
    xorl %esi, %esi
    xorl %edi, %edi
    movl $ROUNDS, %ecx
3:  movl %ebp, %cr3
    addl OTHER, %esi
    addl WINDOW, %edi
    movl page_directory, %eax
    movl %eax, %cr3
    subl OTHER, %esi
    subl WINDOW, %edi
    decl %ecx
    jnz 3b
    check_eq "address spaces that take turns have their own pages", %esi, $(0xb0b0b0b0 - 0xa0a0a0a0) * ROUNDS
    check_eq "... and the global one in common", %edi, $0
    ret

.bss
.balign 4
pte: .space 4
second: .space 4
