# Privileged instructions: in ring 0 they do what the manual says, in ring 3 they raise #GP(0) at their own address.

guest_main:
    plan 69
    call control_registers
    call debug_registers
    call tables
    call machine_registers
    call interrupt_flag
    call from_ring3
    ret

control_registers:
    movl %cr0, %ebx
    movl %ebx, %eax
    orl $CR0_MP | CR0_NE | CR0_AM | CR0_WP | CR0_TS, %eax
    movl %eax, %cr0
    movl %cr0, %eax
    andl $CR0_PE | CR0_MP | CR0_NE | CR0_AM | CR0_WP | CR0_TS | CR0_PG, %eax
    check_eq "CR0 keeps MP NE AM WP TS", %eax, $CR0_PE | CR0_MP | CR0_NE | CR0_AM | CR0_WP | CR0_TS
    clts
    movl %cr0, %eax
    andl $CR0_PE | CR0_MP | CR0_TS, %eax
    check_eq "CLTS clears TS alone", %eax, $CR0_PE | CR0_MP
    movl $CR0_TS, %eax
    lmsw %ax
    movl %cr0, %eax
    andl $CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE, %eax
    check_eq "LMSW sets TS, clears MP, cannot clear PE, leaves NE", %eax, $CR0_PE | CR0_TS | CR0_NE
    movw $CR0_MP | CR0_EM, scratch
    lmsw scratch
    movl %cr0, %eax
    andl $CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE, %eax
    check_eq "LMSW from memory", %eax, $CR0_PE | CR0_MP | CR0_EM | CR0_NE
    movl %ebx, %cr0
    movl %cr0, %eax
    check_eq "CR0 is as at the start again", %eax, %ebx

    movl $0x12345678, %eax
    movl %eax, %cr2
    xorl %eax, %eax
    movl %cr2, %eax
    check_eq "CR2 keeps 32 bits", %eax, $0x12345678
    movl $0x00345000, %eax
    movl %eax, %cr3
    xorl %eax, %eax
    movl %cr3, %eax
    check_eq "CR3 keeps the directory's address", %eax, $0x00345000
    movl $0x00346018, %eax
    movl %eax, %cr3
    movl %cr3, %eax
    check_eq "CR3 keeps PWT and PCD", %eax, $0x00346018

    movl %cr4, %ebx
    movl %ebx, %eax
    orl $CR4_TSD | CR4_DE | CR4_PSE | CR4_PGE, %eax
    movl %eax, %cr4
    movl %cr4, %eax
    andl $CR4_TSD | CR4_DE | CR4_PSE | CR4_PGE, %eax
    check_eq "CR4 keeps TSD DE PSE PGE", %eax, $CR4_TSD | CR4_DE | CR4_PSE | CR4_PGE
    movl %ebx, %cr4
    movl %cr4, %eax
    check_eq "CR4 is as at the start again", %eax, %ebx
    ret

debug_registers:
    movl $0x11110000, %eax
    movl %eax, %dr0
    movl $0x22220000, %eax
    movl %eax, %dr1
    movl $0x33330000, %eax
    movl %eax, %dr2
    movl $0x44440000, %eax
    movl %eax, %dr3
    movl %dr0, %eax
    check_eq "DR0", %eax, $0x11110000
    movl %dr1, %eax
    check_eq "DR1", %eax, $0x22220000
    movl %dr2, %eax
    check_eq "DR2", %eax, $0x33330000
    movl %dr3, %eax
    check_eq "DR3", %eax, $0x44440000
    movl $0x13230400, %eax              # lengths and kinds, nothing enabled
    movl %eax, %dr7
    movl %dr7, %eax
    check_eq "DR7", %eax, $0x13230400
    movl $0x00000400, %eax
    movl %eax, %dr7
    movl %dr7, %eax
    check_eq "DR7 cleared", %eax, $0x00000400
    movl $0xffff0ff0, %eax
    movl %eax, %dr6
    movl %dr6, %eax
    andl $0x0000e00f, %eax
    check_eq "DR6 cleared", %eax, $0
    ret

tables:
    # A copy of the GDT with one more segment, whose base is that of `scratch`.
    movl $gdt, %esi
    movl $other_gdt, %edi
    movl $12, %ecx
    rep
    movsl
    movl $scratch, %eax
    movw %ax, other_gdt + SEL_FREE + 2
    shrl $16, %eax
    movb %al, other_gdt + SEL_FREE + 4
    movb %ah, other_gdt + SEL_FREE + 7
    movl $0xfeedbeef, scratch
    lgdt other_gdt_pointer
    movl $SEL_FREE, %eax
    movw %ax, %fs
    movl %fs:0, %ebx
    check_eq "LGDT: a segment of the new table is loaded, with its base", %ebx, $0xfeedbeef
    lgdt gdt_pointer
    movl %fs:0, %ebx
    check_eq "LGDT: a loaded segment outlives its table", %ebx, $0xfeedbeef
    movl $SEL_FREE, %eax
    try 1f
2:  movw %ax, %fs
    nop
1:  expect_trap "LGDT: the old table does not have the segment", VEC_GP, SEL_FREE, 2b
    movl $SEL_KDATA, %eax
    movw %ax, %fs

    # An IDT whose vector 0x40 goes elsewhere.
    movl $0x40, %eax
    movl $vector_40_first, %edx
    call gate_set
    movl $idt, %esi
    movl $other_idt, %edi
    movl $512, %ecx
    rep
    movsl
    movl $vector_40_second, %edx
    call gate_set
    xorl %ebx, %ebx
    int $0x40
    check_eq "LIDT: the first table", %ebx, $2
    lidt other_idt_pointer
    xorl %ebx, %ebx
    int $0x40
    check_eq "LIDT: the second table", %ebx, $1
    lidt idt_pointer
    xorl %ebx, %ebx
    int $0x40
    check_eq "LIDT: the first table again", %ebx, $2
    movl $0x40, %eax
    call gate_reset

    movzbl gdt + SEL_TSS + 5, %ebx
    check_eq "LTR has made the descriptor busy", %ebx, $0x8b
    movl $SEL_TSS, %eax
    try 1f
2:  ltr %ax
1:  expect_trap "LTR of a busy descriptor raises #GP(selector)", VEC_GP, SEL_TSS, 2b
    movb $0x89, gdt + SEL_TSS + 5
    movl $SEL_TSS, %eax
    try 1f
    ltr %ax
1:  expect_no_trap "LTR of an available one"
    movl $SEL_KDATA, %eax
    try 1f
2:  ltr %ax
1:  expect_trap "LTR of a data segment raises #GP(selector)", VEC_GP, SEL_KDATA, 2b

    # The LDT is `local`: one data segment, based at `scratch`.
    movl $local, %eax
    movw %ax, gdt + SEL_FREE + 2
    shrl $16, %eax
    movb %al, gdt + SEL_FREE + 4
    movb %ah, gdt + SEL_FREE + 7
    movl $0x0000820f, %eax
    movb %ah, gdt + SEL_FREE + 5
    movw $15, gdt + SEL_FREE
    movl $scratch, %eax
    movw %ax, local + 8 + 2
    shrl $16, %eax
    movb %al, local + 8 + 4
    movb %ah, local + 8 + 7
    movl $SEL_FREE, %eax
    lldt %ax
    movl $0x0c, %eax
    movw %ax, %gs
    movl %gs:0, %ebx
    check_eq "LLDT: a segment of the LDT is loaded", %ebx, $0xfeedbeef
    movl $SEL_KDATA, %eax
    movw %ax, %gs
    xorl %eax, %eax
    lldt %ax
    movl $0x0c, %eax
    try 1f
2:  movw %ax, %gs
    nop
1:  expect_trap "LLDT 0: there is no LDT", VEC_GP, 0x0c, 2b
    movl $SEL_KDATA, %eax
    movw %ax, %gs
    movl $SEL_UDATA & ~3, %eax
    try 1f
2:  lldt %ax
1:  expect_trap "LLDT of a data segment raises #GP(selector)", VEC_GP, SEL_UDATA & ~3, 2b
    ret

machine_registers:
    try 1f
    invlpg scratch
    wbinvd
1:  expect_no_trap "INVLPG and WBINVD"
    sysenter_to 0x00123450, 0x00543210
    movl $0x174, %ecx
    rdmsr
    check_eq "IA32_SYSENTER_CS", %eax, $SEL_KCODE
    movl $0x175, %ecx
    rdmsr
    check_eq "IA32_SYSENTER_ESP", %eax, $0x00123450
    movl $0x176, %ecx
    rdmsr
    check_eq "IA32_SYSENTER_EIP", %eax, $0x00543210
    check_eq "... and its upper half", %edx, $0
    rdtsc
    movl %eax, %ebx
    movl %edx, %esi
    rdtsc
    subl %ebx, %eax
    sbbl %esi, %edx
    shrl $31, %edx
    check_eq "RDTSC does not run backwards", %edx, $0
    ret

# IF as the frame of an exception shows it, and HLT.
interrupt_flag:
    call pic_init
    sti
    nop
    try 1f
    ud2
1:  movl trap_eflags, %eax
    andl $EFLAGS_IF, %eax
    check_eq "STI sets IF", %eax, $EFLAGS_IF
    cli
    try 1f
    ud2
1:  movl trap_eflags, %eax
    andl $EFLAGS_IF, %eax
    check_eq "CLI clears IF", %eax, $0
    hook VEC_IRQ0, on_tick
    movl $11932, %eax
    call pit_start
    movb $0xfe, %al
    outb %al, $PIC1 + 1
    sti
    hlt
    cli
    movb $0xff, %al
    outb %al, $PIC1 + 1
    xorl %eax, %eax
    cmpl $0, ticks
    setne %al
    check_eq "HLT ends with an interrupt", %eax, $1
    ret

from_ring3:
    fault3 "ring 3: CLI", VEC_GP, 0, cli
    fault3 "ring 3: STI", VEC_GP, 0, sti
    fault3 "ring 3: HLT", VEC_GP, 0, hlt
    fault3 "ring 3: IN", VEC_GP, 0, inb $0x80, %al
    fault3 "ring 3: IN DX", VEC_GP, 0, inl %dx, %eax
    fault3 "ring 3: OUT", VEC_GP, 0, outb %al, $0x80
    fault3 "ring 3: INS", VEC_GP, 0, insb
    fault3 "ring 3: OUTS", VEC_GP, 0, outsb
    fault3 "ring 3: LGDT", VEC_GP, 0, lgdt gdt_pointer
    fault3 "ring 3: LIDT", VEC_GP, 0, lidt idt_pointer
    fault3 "ring 3: LLDT", VEC_GP, 0, lldt %ax
    fault3 "ring 3: LTR", VEC_GP, 0, ltr %ax
    fault3 "ring 3: LMSW", VEC_GP, 0, lmsw %ax
    fault3 "ring 3: CLTS", VEC_GP, 0, clts
    fault3 "ring 3: read CR0", VEC_GP, 0, movl %cr0, %eax
    fault3 "ring 3: write CR0", VEC_GP, 0, movl %eax, %cr0
    fault3 "ring 3: read CR2", VEC_GP, 0, movl %cr2, %eax
    fault3 "ring 3: write CR2", VEC_GP, 0, movl %eax, %cr2
    fault3 "ring 3: read CR3", VEC_GP, 0, movl %cr3, %eax
    fault3 "ring 3: write CR3", VEC_GP, 0, movl %eax, %cr3
    fault3 "ring 3: read CR4", VEC_GP, 0, movl %cr4, %eax
    fault3 "ring 3: write CR4", VEC_GP, 0, movl %eax, %cr4
    fault3 "ring 3: read DR7", VEC_GP, 0, movl %dr7, %eax
    fault3 "ring 3: write DR0", VEC_GP, 0, movl %eax, %dr0
    fault3 "ring 3: INVLPG", VEC_GP, 0, invlpg scratch
    fault3 "ring 3: WBINVD", VEC_GP, 0, wbinvd
    fault3 "ring 3: RDMSR", VEC_GP, 0, rdmsr
    fault3 "ring 3: WRMSR", VEC_GP, 0, wrmsr
    movl %cr4, %eax
    orl $CR4_TSD, %eax
    movl %eax, %cr4
    fault3 "ring 3: RDTSC with CR4.TSD", VEC_GP, 0, rdtsc
    movl %cr4, %eax
    andl $~CR4_TSD, %eax
    movl %eax, %cr4
    run_ring3 2f
    expect_trap "ring 3: RDTSC without CR4.TSD", VEC_LEAVE
    ret
2:  rdtsc
    int $VEC_LEAVE

vector_40_first:
    movl $1, %ebx
    iretl
vector_40_second:
    movl $2, %ebx
    iretl

.data
.balign 8
other_gdt:
    .fill 6, 8, 0
    .quad 0x004092000000000f            # data, 16 bytes
other_gdt_end:
other_gdt_pointer: .word other_gdt_end - other_gdt - 1
    .long other_gdt
other_idt_pointer: .word 256 * 8 - 1
    .long other_idt
.balign 8
local:
    .quad 0
    .quad 0x004092000000000f
.bss
.balign 8
other_idt: .space 256 * 8
scratch: .space 16
