# Virtual-8086 mode: entered by IRET, left by an exception of its first instruction; the frame shows all segment registers.

.set V86_SEGMENT, 0x4200
.set EFLAGS_VM, 0x20000
.set EFLAGS_IOPL, 0x3000

.macro in_v86 text:req, offset:req, vector:req, error:req
    movl $\offset, %eax
    call enter_v86
    expect_trap "\text", \vector, \error, \offset
.endm

guest_main:
    plan 18
    movl $code16, %esi
    movl $V86_SEGMENT << 4, %edi
    movl $code16_end - code16, %ecx
    rep
    movsb
    in_v86 "UD2", 0x00, VEC_UD, 0
    check_eq "... EFLAGS.VM is in the frame", %ebx, $EFLAGS_VM
    check_eq "... CS", trap_stack_top - 32, $V86_SEGMENT
    check_eq "... SS", trap_stack_top - 20, $0x1001
    check_eq "... SP", trap_stack_top - 24, $0xfff0
    check_eq "... ES", trap_stack_top - 16, $0x1002
    check_eq "... DS", trap_stack_top - 12, $0x1003
    check_eq "... FS", trap_stack_top - 8, $0x1004
    check_eq "... GS", trap_stack_top - 4, $0x1005
    check_eq "... the handler's DS is null", trap_ds, $0
    pushfl
    popl %eax
    andl $EFLAGS_VM, %eax
    check_eq "... and VM is off", %eax, $0
    in_v86 "HLT", 0x10, VEC_GP, 0
    in_v86 "CLI with IOPL 0", 0x20, VEC_GP, 0
    in_v86 "INT with IOPL 0", 0x30, VEC_GP, 0
    in_v86 "SLDT", 0x40, VEC_UD, 0
    # A segment that is a selector of the kernel's code as well.
    movw $0x0b0f, 0x500                 # ud2
    movl $SEL_KCODE, segment
    in_v86 "CS like a selector", 0x500 - SEL_KCODE * 16, VEC_UD, 0
    check_eq "... it is none", %ebx, $EFLAGS_VM
    movl $V86_SEGMENT, segment
    movl $EFLAGS_IOPL, iopl
    in_v86 "MOV from CR0 with IOPL 3", 0x50, VEC_GP, 0
    ret

# EAX: the offset of the code. EBX: VM in the flags that were pushed.
enter_v86:
    try 1f
    pushl $0x1005
    pushl $0x1004
    pushl $0x1003
    pushl $0x1002
    pushl $0x1001
    pushl $0xfff0
    movl iopl, %edx
    orl $EFLAGS_VM | 2, %edx
    pushl %edx
    pushl segment
    pushl %eax
    iretl
1:  movl trap_stack_top - 28, %ebx
    andl $EFLAGS_VM, %ebx
    ret

.section .rodata
.code16
code16:
    ud2
    .org code16 + 0x10
    hlt
    .org code16 + 0x20
    cli
    .org code16 + 0x30
    int $0x10
    .org code16 + 0x40
    sldt %ax
    .org code16 + 0x50
    movl %cr0, %eax
code16_end:
.code32

.data
.balign 4
segment: .long V86_SEGMENT
.bss
.balign 4
iopl: .space 4
