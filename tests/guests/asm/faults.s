# Exceptions: which vector, which error code, which address, and what happens when their delivery fails.

.set SEL_ABSENT_DATA, SEL_FREE
.set HOLE, 0x40000000                   # not mapped

guest_main:
    plan 57
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    movl $0x0000ffff, gdt + SEL_ABSENT_DATA
    movl $0x00cf1200, gdt + SEL_ABSENT_DATA + 4
    call arithmetic
    call debug
    call opcodes
    call coprocessor
    call protection
    call page_faults
    call nested
    call double_faults
    ret

arithmetic:
    xorl %ecx, %ecx
    movl $1, %eax
    xorl %edx, %edx
    fault "#DE: division by zero", VEC_DE, 0, divl %ecx
    movl $1, %ecx
    movl $1, %edx
    fault "#DE: quotient too large", VEC_DE, 0, divl %ecx
    xorl %ecx, %ecx
    fault3 "#DE in ring 3", VEC_DE, 0, divb %cl
    movl $bounds, %ebx
    movl $11, %ecx
    fault "#BR: behind the upper bound", VEC_BR, 0, bound %ecx, bounds
    movl $-1, %ecx
    fault3 "#BR in ring 3: below the lower bound", VEC_BR, 0, bound %ecx, bounds
    movl $10, %ecx
    try 1f
    bound %ecx, bounds
1:  expect_no_trap "BOUND at the bound"
    try 1f
    movb $0x7f, %al
    addb $1, %al
    into
2:  nop
1:  expect_trap "#OF: INTO reports the next instruction", VEC_OF, 0, 2b
    try 1f
    xorl %eax, %eax
    into
1:  expect_no_trap "INTO without overflow"
    run_ring3 3f
    expect_trap "ring 3: INTO through a gate of DPL 0", VEC_GP, VEC_OF * 8 + 2, 4f
    movl $VEC_OF, %eax
    movl $0xee, %edx
    call gate_type
    run_ring3 3f
    expect_trap "ring 3: INTO through a gate of DPL 3", VEC_OF, 0, 5f
    ret
3:  movb $0x7f, %al
    addb $1, %al
4:  into
5:  int $VEC_LEAVE

debug:
    try 1f
    int3
2:  nop
1:  expect_trap "#BP: INT3 reports the next instruction", VEC_BP, 0, 2b
    fault3 "ring 3: INT3 through a gate of DPL 0", VEC_GP, VEC_BP * 8 + 2, int3
    movl $VEC_BP, %eax
    movl $0xee, %edx
    call gate_type
    run_ring3 3f
    expect_trap "ring 3: INT3 through a gate of DPL 3", VEC_BP, 0, 4f
    try 1f
    .byte 0xcd, 0x03
2:  nop
1:  expect_trap "INT 3 in two bytes", VEC_BP, 0, 2b
    movl $0xffff0ff0, %eax
    movl %eax, %dr6
    try 1f
    pushl $EFLAGS_TF | 2
    pushl $SEL_KCODE
    pushl $2f
    iretl
2:  nop
5:  nop
1:  expect_trap "#DB: TF, one instruction after IRET", VEC_DB, 0, 5b
    movl %dr6, %eax
    andl $0x4000, %eax
    check_eq "... DR6.BS is set", %eax, $0x4000
    movl trap_eflags, %eax
    andl $EFLAGS_TF, %eax
    check_eq "... TF is set in the frame", %eax, $EFLAGS_TF
    run_ring3 6f
    expect_trap "#DB in ring 3: TF by POPF, after the next instruction", VEC_DB, 0, 7f
    movl $0, steps
    hook VEC_DB, on_step
    pushl $EFLAGS_TF | 2
    pushl $SEL_KCODE
    pushl $2f
    iretl
2:  movl $5, %ecx
1:  decl %ecx
    jnz 1b
    nop
    .rept 16
    nop
    .endr
    hook VEC_DB, 0
    check_eq "single steps through a loop", steps, $20
    ret
3:  int3
4:  nop
6:  pushl $EFLAGS_TF | 2
    popfl
    nop
7:  nop
    int $VEC_LEAVE

on_step:
    incl steps
    cmpl $20, steps
    jb 1f
    andl $~EFLAGS_TF, FRAME_EFLAGS(%ebp)
1:  ret

opcodes:
    fault "#UD: UD2", VEC_UD, 0, ud2
    fault3 "#UD in ring 3", VEC_UD, 0, ud2
    fault "#UD: LOCK before an instruction without memory", VEC_UD, 0, .byte 0xf0, 0x40
    fault "#UD: LEA of a register", VEC_UD, 0, .byte 0x8d, 0xc0
    fault "#UD: MOV CR1", VEC_UD, 0, .byte 0x0f, 0x20, 0xc8
    fault "#UD: MOV CS", VEC_UD, 0, .byte 0x8e, 0xc8
    ret

coprocessor:
    movl %cr0, %eax
    andl $~(CR0_EM | CR0_MP), %eax
    orl $CR0_TS, %eax
    movl %eax, %cr0
    fault "#NM: TS and an x87 instruction", VEC_NM, 0, fnop
    fault3 "#NM in ring 3", VEC_NM, 0, fnop
    try 1f
    fwait
1:  expect_no_trap "WAIT with TS, without MP"
    movl %cr0, %eax
    orl $CR0_MP, %eax
    movl %eax, %cr0
    fault "#NM: WAIT with TS and MP", VEC_NM, 0, fwait
    clts
    try 1f
    fnop
    fwait
1:  expect_no_trap "x87 after CLTS"
    movl %cr0, %eax
    orl $CR0_EM, %eax
    movl %eax, %cr0
    fault "#NM: EM and an x87 instruction", VEC_NM, 0, fnop
    movl %cr0, %eax
    andl $~CR0_EM, %eax
    movl %eax, %cr0
    ret

protection:
    movl $SEL_ABSENT_DATA, %ebx
    movl $0xfff8, %esi
    movl $0x000c, %edi
    fault "#NP: MOV DS", VEC_NP, SEL_ABSENT_DATA, movw %bx, %ds
    fault "#SS: MOV SS", VEC_SS, SEL_ABSENT_DATA, movw %bx, %ss
    fault "#GP: MOV ES behind the GDT", VEC_GP, 0xfff8, movw %si, %es
    fault "#GP: MOV FS from an LDT that is not there", VEC_GP, 0x000c, movw %di, %fs
    fault3 "#GP: HLT in ring 3", VEC_GP, 0, hlt
    fault3 "#GP: INT through a gate of DPL 0 in ring 3", VEC_GP, 0x40 * 8 + 2, int $0x40
    lidt short_idt
    fault "#GP: INT behind the IDT", VEC_GP, 0x40 * 8 + 2, int $0x40
    lidt idt_pointer
    ret

page_faults:
    movl $HOLE, %ebx
    try 1f
2:  movl 0x123(%ebx), %eax
1:  expect_trap "#PF: read", VEC_PF, 0, 2b, HOLE + 0x123
    try 1f
2:  movl %eax, 0x456(%ebx)
1:  expect_trap "#PF: write", VEC_PF, PF_W, 2b, HOLE + 0x456
    try 1f
    jmp *%ebx
1:  expect_trap "#PF: fetch", VEC_PF, 0, HOLE, HOLE
    try 1f
    pushl $0x1234
2:  popl (%ebx)
1:  expect_trap "#PF: POP into memory", VEC_PF, PF_W, 2b, HOLE
    run_ring3 3f
    expect_trap "#PF in ring 3: read", VEC_PF, PF_U, 3f, HOLE + 0xffc
    run_ring3 4f
    expect_trap "#PF in ring 3: PUSH", VEC_PF, PF_U | PF_W, 5f, HOLE + 0xffc
    check_eq "... leaves ESP alone", trap_esp, $HOLE + 0x1000
    run_ring3 6f
    expect_trap "#PF in ring 3: fetch", VEC_PF, PF_U, HOLE + 0x10, HOLE + 0x10
    # A page and a hole behind it.
    movl $HOLE + 0x1000, %eax
    movl $0x01000000 | PTE_P | PTE_W | PTE_U, %edx
    call map_page
    try 1f
2:  movl 0x1ffe(%ebx), %eax
1:  expect_trap "#PF: a read across the end of a page reports the second page", VEC_PF, 0, 2b, HOLE + 0x2000
    try 1f
2:  movl %eax, 0x0ffe(%ebx)
1:  expect_trap "#PF: a write across its start reports the first page", VEC_PF, PF_W, 2b, HOLE + 0x0ffe
    # REP MOVS stops in the middle.
    try 1f
    movl $_start, %esi
    leal 0x1ff0(%ebx), %edi
    movl $16, %ecx
2:  rep
    movsl
1:  expect_trap "#PF: REP MOVS at the page's end", VEC_PF, PF_W, 2b, HOLE + 0x2000
    check_eq "... ECX says what is left", trap_ecx, $12
    check_eq "... EDI where it was", trap_edi, $HOLE + 0x2000
    check_eq "... ESI too", trap_esi, $_start + 16
    ret
3:  movl HOLE + 0xffc, %eax
4:  movl $HOLE + 0x1000, %esp
5:  pushl $1
6:  movl $HOLE + 0x10, %eax
    jmp *%eax

# A fault in a handler, and IRET from both.
nested:
    hook VEC_BR, on_bound
    hook VEC_PF, on_hole
    movl $99, %ecx
    bound %ecx, bounds
    hook VEC_BR, 0
    hook VEC_PF, 0
    check_eq "a page fault in the handler of #BR", nested_order, $0x0132
    ret

on_bound:
    movl $10, FRAME_ECX(%ebp)           # makes BOUND succeed
    shll $4, nested_order
    orl $1, nested_order
    movl HOLE + 0x5000, %eax
    shll $4, nested_order
    orl $2, nested_order
    ret
on_hole:
    pushal
    movl $HOLE + 0x5000, %eax
    movl $0x01002000 | PTE_P | PTE_W, %edx
    call map_page
    popal
    shll $4, nested_order
    orl $3, nested_order
    ret

double_faults:
    movl $VEC_UD, %eax
    movl $0x0e, %edx
    call gate_type
    try 1f
2:  ud2
1:  expect_trap "#UD whose gate is absent: #NP", VEC_NP, VEC_UD * 8 + 2, 2b, mask=~1
    movl $VEC_UD, %eax
    call gate_reset
    movl $VEC_GP, %eax
    movl $0x0e, %edx
    call gate_type
    movl $0xfff8, %ecx
    try 1f
    movw %cx, %es
1:  expect_trap "#GP whose gate is absent: #DF", VEC_DF, 0
    movl $VEC_GP, %eax
    call gate_reset
    movl $VEC_PF, %eax
    movl $0x0e, %edx
    call gate_type
    movl $HOLE, %ebx
    try 1f
    movl (%ebx), %eax
1:  expect_trap "#PF whose gate is absent: #DF", VEC_DF, 0
    movl $VEC_PF, %eax
    call gate_reset
    movl $VEC_DE, %eax
    movl $0x0e, %edx
    call gate_type
    xorl %ecx, %ecx
    try 1f
    divl %ecx
1:  expect_trap "#DE whose gate is absent: #DF", VEC_DF, 0
    movl $VEC_DE, %eax
    call gate_reset
    ret

.section .rodata
.balign 4
bounds: .long 0, 10
short_idt: .word 0x1ff                  # vectors 0 to 0x3f
    .long idt
.bss
.balign 4
steps: .space 4
nested_order: .space 4
