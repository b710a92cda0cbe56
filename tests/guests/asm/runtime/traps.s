# Descriptor tables, trap entry, and the way into ring 3.
#
# A trap is recorded in trap_*. Then, in this order: its hook is called and the trap returns; or control goes back to
# the label of the last `try`; or the guest gives up, because nobody expected the trap.

.text
segments_init:
    movl $tss, %eax                     # the TSS descriptor's base
    movw %ax, gdt + SEL_TSS + 2
    shrl $16, %eax
    movb %al, gdt + SEL_TSS + 4
    movb %ah, gdt + SEL_TSS + 7
    movl $trap_stack_top, tss + 4       # ESP0
    movl $SEL_KDATA, tss + 8            # SS0
    movw $104, tss + 102                # no I/O bitmap
    lgdt gdt_pointer
    ljmp $SEL_KCODE, $1f
1:  movl $SEL_KDATA, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    movw %ax, %ss
    xorl %eax, %eax                     # no LDT; after a reset LDTR holds something
    lldt %ax
    movl $SEL_TSS, %eax
    ltr %ax
    xorl %ecx, %ecx
2:  movl %ecx, %eax
    call gate_reset
    incl %ecx
    cmpl $256, %ecx
    jne 2b
    movl $VEC_LEAVE, %eax
    movl $0xee, %edx
    call gate_type
    lidt idt_pointer
    ret

# EAX: vector. Gives it an interrupt gate of DPL 0 to its stub.
.globl gate_reset
gate_reset:
    pushl %edx
    movl %eax, %edx
    shll $4, %edx
    addl $trap_stubs, %edx
    call gate_set
    movl $0x8e, %edx
    call gate_type
    popl %edx
    ret

# EAX: vector, EDX: where it goes.
.globl gate_set
gate_set:
    pushl %edx
    movw %dx, idt(, %eax, 8)
    shrl $16, %edx
    movw %dx, idt + 6(, %eax, 8)
    movw $SEL_KCODE, idt + 2(, %eax, 8)
    popl %edx
    ret

# EAX: vector, DL: present bit, DPL and type (0x8e interrupt gate, 0x8f trap gate, 0xee and 0xef the same for ring 3).
.globl gate_type
gate_type:
    movb %dl, idt + 5(, %eax, 8)
    ret

# Runs the code at EAX in ring 3, interrupts off, until it traps. EBX, ESI, EDI and EBP are kept for the caller; ring 3
# gets all registers but EAX as they are.
.globl enter_ring3
enter_ring3:
    pushl %eax
    movl $0x002, %eax
    movl %eax, ring3_eflags
    popl %eax

# The same with the flags in ring3_eflags.
.globl enter_ring3_flags
enter_ring3_flags:
    try 1f
    pushl $SEL_UDATA
    pushl $user_stack_top
    pushl ring3_eflags
    pushl $SEL_UCODE
    pushl %eax
    movl $SEL_UDATA, %eax
    movw %ax, %ds
    movw %ax, %es
    iretl
1:  ret

# One stub for each vector, 16 bytes apart: the processor's frame is completed to error code and vector.
.balign 16
trap_stubs:
.set stub, 0
.rept 256
    .balign 16
    .if (stub != 8) && (stub != 10) && (stub != 11) && (stub != 12) && (stub != 13) && (stub != 14) && (stub != 17)
    pushl $0
    .endif
    .byte 0x68                          # pushl, always with 32 bits
    .long stub
    jmp trap_entry
    .set stub, stub + 1
.endr

.globl trap_entry
trap_entry:
    pushal
    pushl %ds
    pushl %es
    movl $SEL_KDATA, %eax
    movw %ax, %ds
    movw %ax, %es
    cld
    movl %esp, %ebp
    movl FRAME_VECTOR(%ebp), %eax
    movl %eax, trap_vector
    cmpl $VEC_PF, %eax
    jne 1f
    movl %cr2, %edx
    movl %edx, trap_cr2
1:  movl FRAME_ERROR(%ebp), %edx
    movl %edx, trap_error
    movl FRAME_EIP(%ebp), %edx
    movl %edx, trap_eip
    movzwl FRAME_CS(%ebp), %edx
    movl %edx, trap_cs
    movl FRAME_EFLAGS(%ebp), %edx
    movl %edx, trap_eflags
    movl $trap_regs, %edi               # DS and the general registers, in the frame's order
    leal FRAME_DS(%ebp), %esi
    movl $9, %ecx
    rep
    movsl
    testl $3, trap_cs
    jz 2f
    movl FRAME_ESP(%ebp), %edx
    movl %edx, trap_esp
    movzwl FRAME_SS(%ebp), %edx
    movl %edx, trap_ss
2:  movl trap_hooks(, %eax, 4), %edx
    testl %edx, %edx
    jz 3f
    call *%edx
    popl %es
    popl %ds
    popal
    addl $8, %esp
    iretl
3:  movl try_resume, %edx
    testl %edx, %edx
    jz trap_unexpected
    movl $0, try_resume
    movl try_esp, %esp
    movl try_ebx, %ebx
    movl try_esi, %esi
    movl try_edi, %edi
    movl try_ebp, %ebp
    jmp *%edx

trap_unexpected:
    say "Bail out! unexpected trap: "
    movl $trap_vector, %esi
    call print_trap
    say "\n"
    movl $3, %eax
    jmp exit

.data
.balign 8
.globl gdt
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff            # ring 0 code
    .quad 0x00cf92000000ffff            # ring 0 data
    .quad 0x00cffa000000ffff            # ring 3 code
    .quad 0x00cff2000000ffff            # ring 3 data
    .quad 0x0000890000000067            # TSS
    .fill 10, 8, 0
gdt_end:
.globl gdt_pointer
gdt_pointer: .word gdt_end - gdt - 1
    .long gdt
.globl idt_pointer
idt_pointer: .word 256 * 8 - 1
    .long idt

.bss
.balign 8
.globl idt
idt: .space 256 * 8
.globl trap_hooks
trap_hooks: .space 256 * 4
trap_vector: .space 4                   # these four in print_trap's order
trap_error: .space 4
trap_eip: .space 4
trap_cr2: .space 4
trap_cs: .space 4
trap_eflags: .space 4
trap_esp: .space 4                      # ESP and SS of an outer ring
trap_ss: .space 4
trap_regs:                              # DS EDI ESI EBP ESP EBX EDX ECX EAX
trap_ds: .space 4
trap_edi: .space 4
trap_esi: .space 4
trap_ebp: .space 4
    .space 4
trap_ebx: .space 4
trap_edx: .space 4
trap_ecx: .space 4
trap_eax: .space 4
try_resume: .space 4
try_esp: .space 4
try_ebx: .space 4
try_esi: .space 4
try_edi: .space 4
try_ebp: .space 4
ring3_eflags: .space 4
.balign 4096
    .space 8192
.globl trap_stack_top
trap_stack_top:
    .space 8192
.globl user_stack_top
user_stack_top:
.globl tss
tss:                                    # a page of its own: a hypervisor may watch it
    .space 4096
