# Sensitive instructions that do not trap outside ring 0: what a kernel and its user code see of them.

.set SEL_ABSENT,  SEL_FREE + 0x00       # data, not present
.set SEL_ROM,     SEL_FREE + 0x08       # data, read-only, limit 0x1234
.set SEL_XONLY,   SEL_FREE + 0x10       # code that cannot be read
.set SEL_DATA3,   SEL_FREE + 0x18       # data of ring 3

guest_main:
    plan 71
    movl $descriptors, %esi
    movl $gdt + SEL_FREE, %edi
    movl $8, %ecx
    rep
    movsl
    call pic_init
    call interrupt_flag
    call other_flags
    call selectors
    call table_registers
    call descriptor_checks
    call far_calls
    call interrupt_returns
    call code_reads
    call breakpoints
    call single_steps
    call user_code
    ret

# Flags of interest: IF.
interrupt_flag:
    cli
    pushfl
    popl %ebx
    andl $EFLAGS_IF, %ebx
    check_eq "PUSHF after CLI", %ebx, $0
    sti
    pushfl
    cli
    popl %ebx
    andl $EFLAGS_IF, %ebx
    check_eq "PUSHF after STI", %ebx, $EFLAGS_IF
    pushfl
    orl $EFLAGS_IF, (%esp)
    popfl
    pushfl
    popl %ebx
    andl $EFLAGS_IF, %ebx
    check_eq "POPF sets IF", %ebx, $EFLAGS_IF
    pushfl                              # what kernels do around what must not be interrupted
    cli
    pushfl
    popl %ecx
    popfl
    pushfl
    popl %edx
    andl $EFLAGS_IF, %ecx
    andl $EFLAGS_IF, %edx
    pushl %edx
    check_eq "PUSHF; CLI: off", %ecx, $0
    popl %edx
    check_eq "... POPF: on again", %edx, $EFLAGS_IF
    pushfl
    andl $~EFLAGS_IF, (%esp)
    popfl
    pushfl
    popl %ebx
    andl $EFLAGS_IF, %ebx
    check_eq "POPF clears IF", %ebx, $0
    sti
    pushfw
    popw %bx
    andl $EFLAGS_IF, %ebx
    check_eq "PUSHF of 16 bits", %ebx, $EFLAGS_IF
    pushw $2
    popfw
    pushfl
    popl %ebx
    andl $EFLAGS_IF, %ebx
    check_eq "POPF of 16 bits", %ebx, $0
    movl %esp, %ebx
    pushfw
    subl %esp, %ebx
    popfw
    check_eq "... which push two bytes", %ebx, $2
    ret

other_flags:
    pushfl
    popl %ebx
    check_eq "PUSHF at rest", %ebx, $0x46
    pushl $0x3002
    popfl
    pushfl
    popl %ebx
    check_eq "POPF sets IOPL", %ebx, $0x3002
    pushl $2
    popfl
    pushfl
    popl %ebx
    check_eq "POPF clears IOPL", %ebx, $2
    pushl $0x244cd7                     # ID, AC, NT and DF, and all of arithmetic
    popfl
    pushfl
    cld
    popl %ebx
    pushl $2
    popfl
    check_eq "POPF sets ID, AC, NT, DF and the flags of results", %ebx, $0x244cd7
    pushl $0x130002                     # RF and VM are not loaded
    popfl
    pushfl
    popl %ebx
    check_eq "POPF does not set RF and VM", %ebx, $2
    ret

selectors:
    movl $-1, %ebx
    movl %cs, %ebx
    check_eq "MOV from CS", %ebx, $SEL_KCODE
    movl $-1, %ebx
    movl %ss, %ebx
    check_eq "MOV from SS", %ebx, $SEL_KDATA
    movl $-1, %ebx
    movw %cs, %bx
    check_eq "... 16 bits of it", %ebx, $0xffff0000 | SEL_KCODE
    movl $-1, word
    movw %ss, word
    check_eq "... into memory", word, $0xffff0000 | SEL_KDATA
    pushl %cs
    popl %ebx
    andl $0xffff, %ebx
    check_eq "PUSH CS", %ebx, $SEL_KCODE
    pushl %ss
    popl %ebx
    andl $0xffff, %ebx
    check_eq "PUSH SS", %ebx, $SEL_KDATA
    movl %ds, %ebx
    check_eq "MOV from DS", %ebx, $SEL_KDATA
    movl $SEL_KCODE, %eax
    movw %ax, %ds                       # code that can be read is data too
    movl marker, %ebx
    movl %ds, %ecx
    movl $SEL_KDATA, %eax
    movw %ax, %ds
    pushl %ecx
    check_eq "a read through a code segment in DS", %ebx, $0x600d600d
    popl %ecx
    check_eq "... and its selector", %ecx, $SEL_KCODE
    movl $SEL_KDATA, %eax               # an interrupt must not come between these two
    movw %ax, %ss
    movl %esp, %ebx
    movl %ss, %ebx
    check_eq "MOV SS with its own selector", %ebx, $SEL_KDATA
    ret

table_registers:
    sgdt store
    check_eq "SGDT: base", store + 2, gdt_pointer + 2
    movzwl store, %ebx
    movzwl gdt_pointer, %ecx
    check_eq "SGDT: limit", %ebx, %ecx
    sidt store
    check_eq "SIDT: base", store + 2, idt_pointer + 2
    movl $-1, %ebx
    sldt %ebx
    check_eq "SLDT", %ebx, $0
    movl $-1, %ebx
    str %ebx
    check_eq "STR", %ebx, $SEL_TSS
    movl %cr0, %ecx
    smsw %ebx
    check_eq "SMSW", %ebx, %ecx
    ret

# %ebx: 1 if ZF is set.
.macro zero_flag
    movl $0, %ebx
    jnz 99f
    incl %ebx
99:
.endm

descriptor_checks:
    movl $SEL_KCODE, %ecx
    larl %ecx, %edx
    zero_flag
    check_eq "LAR of kernel code", %ebx, $1
    andl $0xf0ff00, %edx
    check_eq "... its rights", %edx, $0xc09b00
    movl $SEL_TSS, %ecx
    larl %ecx, %edx
    andl $0xf0ff00, %edx
    check_eq "LAR of the busy TSS", %edx, $0x008b00
    movl $SEL_ABSENT, %ecx
    larl %ecx, %edx
    zero_flag
    check_eq "LAR of what is not present", %ebx, $1
    movl $0x7ff8, %ecx
    larl %ecx, %edx
    zero_flag
    check_eq "LAR behind the table", %ebx, $0
    xorl %ecx, %ecx
    larl %ecx, %edx
    zero_flag
    check_eq "LAR of selector 0", %ebx, $0
    movl $SEL_KDATA, %ecx
    lsll %ecx, %edx
    zero_flag
    check_eq "LSL of kernel data", %ebx, $1
    check_eq "... its limit", %edx, $0xffffffff
    movl $SEL_ROM, %ecx
    lsll %ecx, %edx
    check_eq "LSL in bytes", %edx, $0x1234
    movl $SEL_TSS, %ecx
    lsll %ecx, %edx
    check_eq "LSL of the TSS", %edx, $103
    movl $SEL_KDATA, %ecx
    verr %cx
    zero_flag
    check_eq "VERR of kernel data", %ebx, $1
    verw %cx
    zero_flag
    check_eq "VERW of kernel data", %ebx, $1
    movl $SEL_KDATA | 3, %ecx
    verr %cx
    zero_flag
    check_eq "VERR with RPL 3", %ebx, $0
    movl $SEL_ROM, %ecx
    verw %cx
    zero_flag
    check_eq "VERW of data that cannot be written", %ebx, $0
    movl $SEL_XONLY, %ecx
    verr %cx
    zero_flag
    check_eq "VERR of code that cannot be read", %ebx, $0
    movl $SEL_UCODE, %ecx
    verr %cx
    zero_flag
    check_eq "VERR of user code", %ebx, $1
    movl $SEL_KDATA, %eax
    movl $3, %ecx
    arpl %cx, %ax
    zero_flag
    pushl %eax
    check_eq "ARPL raises RPL", %ebx, $1
    popl %eax
    check_eq "... to that of the caller", %eax, $SEL_KDATA | 3
    movl $SEL_UDATA, %eax
    movl $0, %ecx
    arpl %cx, %ax
    zero_flag
    check_eq "ARPL does not lower it", %ebx, $0
    ret

far_calls:
    lcall $SEL_KCODE, $far_target
    check_eq "the CS that a far CALL pushes", %ebx, $SEL_KCODE
    movl $far_target, store
    movw $SEL_KCODE, store + 4
    lcall *store
    check_eq "... through memory", %ebx, $SEL_KCODE
    ret
far_target:
    movzwl 4(%esp), %ebx
    lretl

interrupt_returns:
    cli
    pushl $EFLAGS_IF | 2
    pushl %cs
    pushl $1f
    iretl
1:  pushfl
    cli
    popl %ebx
    check_eq "IRET with a pushed CS sets IF", %ebx, $EFLAGS_IF | 2
    sti
    pushl $2
    pushl %cs
    pushl $1f
    iretl
1:  pushfl
    popl %ebx
    check_eq "... and clears it", %ebx, $2
    movl $2, %eax
    pushl %eax
    popfl
    ret

code_reads:
    movl %cs:marker, %ebx
    check_eq "a read through CS", %ebx, $0x600d600d
    movl $marker, %esi
    cs
    lodsl
    check_eq "... by LODS", %eax, $0x600d600d
    movl $1f, store
    jmp *%cs:store
    movl $0, %ebx
1:  check_eq "... by JMP", %ebx, $0x600d600d
    movzwl %cs:bytes, %ebx
    check_eq "... of this code", %ebx, $0xf4f4
    sgdt store
    xorl %ebx, %ebx
    lgdt %cs:empty_table
    lgdt %cs:store
    ljmp *%cs:far_pointer
    movl $1, %ebx
2:  check_eq "... by LGDT and a far JMP", %ebx, $0
    movw %cs:data_selector, %es
    lfs %cs:data_pointer, %ebx
    check_eq "... by MOV to ES and LFS", %ebx, $0x600d600d
    ret
bytes:
    .byte 0xf4, 0xf4
empty_table:
    .word 7
    .long gdt
far_pointer:
    .long 2b
    .word SEL_KCODE
data_pointer:
    .long 0x600d600d
data_selector:
    .word SEL_KDATA

breakpoints:
    try 1f
    int3
after_int3:
    nop
1:  expect_trap "INT3", VEC_BP, ANY, after_int3
    try 1f
    .byte 0xcd, 3
after_int_3:
    nop
1:  expect_trap "INT 3 of two bytes", VEC_BP, ANY, after_int_3
    try 1f
    movb $0x7f, %al
    addb $1, %al
    into
after_into:
    nop
1:  expect_trap "INTO", VEC_OF, ANY, after_into
    try 1f
    .byte 0xcd, 4
after_int_4:
    nop
1:  expect_trap "INT 4", VEC_OF, ANY, after_int_4
    fault "UD2", VEC_UD, ANY, ud2
    ret

# Single-steps over sensitive instructions; steps are counted, and their addresses added up.
single_steps:
    movl $0, steps
    movl $0, sum
    hook VEC_DB, on_step
    pushfl
    orl $EFLAGS_TF, (%esp)
    popfl
step_first:
    pushfl                              # pushed with TF
    popl %ebx
    movl %cs, %ecx
    pushl %ss
    popl %edx
    larl %ecx, %edx
    pushfl
    andl $~EFLAGS_TF, (%esp)
    popfl
step_last:
    hook VEC_DB, 0
    check_eq "steps", steps, $9
    check_eq "... each at its own address", sum, $steps_sum
    andl $EFLAGS_TF, %ebx
    check_eq "... with TF to be seen", %ebx, $EFLAGS_TF
    ret
on_step:
    incl steps
    movl FRAME_EIP(%ebp), %eax
    subl $step_first, %eax
    addl %eax, sum
    ret
# Offsets behind each of the instructions, by their lengths: 1 1 2 1 1 3 1 7 1
.set steps_sum, 1 + 2 + 4 + 5 + 6 + 9 + 10 + 17 + 18

user_code:
    run_ring3 user_selectors
    expect_trap "ring 3 saw its own selectors", 0x30
    check_eq "... CS", user_word, $SEL_UCODE
    check_eq "... SS", user_word + 4, $SEL_UDATA
    andl $~EFLAGS_IF, user_word + 8     # the real IF, which no guest can hide from its user code
    check_eq "... and flags that POPF left alone", user_word + 8, $2
    ret

.section .text.ring3
user_selectors:
    movl %cs, %eax
    movl %eax, user_word
    movl %ss, %eax
    movl %eax, user_word + 4
    pushl $EFLAGS_IF | 0x3002
    popfl
    pushfl
    popl %eax
    movl %eax, user_word + 8
    int $VEC_LEAVE

.data
.balign 8
descriptors:
    .quad 0x00cf12000000ffff
    .quad 0x0000900000001234
    .quad 0x00cf98000000ffff
    .quad 0x00cff2000000ffff
marker: .long 0x600d600d
word: .long 0
store: .space 8
steps: .long 0
sum: .long 0
user_word: .space 12
