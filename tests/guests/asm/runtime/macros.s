# Constants and macros of the micro-guests. AT&T syntax, 32-bit code.
#
# Calling convention of the runtime: arguments in EAX, EDX, ECX; a result in EAX; every other register is preserved,
# flags are not. Interrupts are off unless a guest turns them on.

.set SEL_KCODE, 0x08            # ring 0 code, flat
.set SEL_KDATA, 0x10            # ring 0 data, flat
.set SEL_UCODE, 0x1b            # ring 3 code, flat
.set SEL_UDATA, 0x23            # ring 3 data, flat
.set SEL_TSS,   0x28
.set SEL_FREE,  0x30            # first of the descriptors that a guest may fill (10 of them)

.set VEC_DE, 0
.set VEC_DB, 1
.set VEC_BP, 3
.set VEC_OF, 4
.set VEC_BR, 5
.set VEC_UD, 6
.set VEC_NM, 7
.set VEC_DF, 8
.set VEC_NP, 11
.set VEC_SS, 12
.set VEC_GP, 13
.set VEC_PF, 14
.set VEC_IRQ0, 0x20             # the PIC's first vector after pic_init
.set VEC_LEAVE, 0x30            # `int $VEC_LEAVE` ends code started by enter_ring3

.set PTE_P, 0x001
.set PTE_W, 0x002
.set PTE_U, 0x004
.set PTE_A, 0x020
.set PTE_D, 0x040
.set PDE_PS, 0x080

.set PF_P, 1                    # page-fault error code: the page was present
.set PF_W, 2                    # ... the access was a write
.set PF_U, 4                    # ... the access came from ring 3

.set CR0_PE, 0x00000001
.set CR0_MP, 0x00000002
.set CR0_EM, 0x00000004
.set CR0_TS, 0x00000008
.set CR0_NE, 0x00000020
.set CR0_WP, 0x00010000
.set CR0_AM, 0x00040000
.set CR0_CD, 0x40000000
.set CR0_PG, 0x80000000
.set CR4_TSD, 0x004
.set CR4_DE,  0x008
.set CR4_PSE, 0x010
.set CR4_PGE, 0x080

.set EFLAGS_TF, 0x100
.set EFLAGS_IF, 0x200

.set NONE, 0xffffffff           # "no trap happened", as a vector
.set ANY,  0x5a5a5a5a           # "not compared"

.set COM1, 0x3f8
.set PIC1, 0x20
.set PIC2, 0xa0
.set PIT,  0x40

# The frame that a trap hook finds at EBP.
.set FRAME_ES, 0
.set FRAME_DS, 4
.set FRAME_EDI, 8
.set FRAME_ESI, 12
.set FRAME_EBP, 16
.set FRAME_EBX, 24
.set FRAME_EDX, 28
.set FRAME_ECX, 32
.set FRAME_EAX, 36
.set FRAME_VECTOR, 40
.set FRAME_ERROR, 44
.set FRAME_EIP, 48
.set FRAME_CS, 52
.set FRAME_EFLAGS, 56
.set FRAME_ESP, 60              # only when the trap came from an outer ring
.set FRAME_SS, 64

# plan 12: announces twelve results.
.macro plan count
    movl $\count, %eax
    call tap_plan
.endm

# check_eq "text", got, want: one result; operands as for pushl (not relative to ESP).
.macro check_eq text:req, got:req, want:req
    .pushsection .rodata
.Ltext_\@: .asciz "\text"
    .popsection
    pushl \want
    pushl \got
    pushl $.Ltext_\@
    call tap_equal              # takes its arguments off the stack
.endm

# try 1f: from here on a trap continues at the label, with ESP, EBX, ESI, EDI and EBP as they are now.
.macro try label:req
    movl $NONE, trap_vector
    movl %esp, try_esp
    movl %ebx, try_ebx
    movl %esi, try_esi
    movl %edi, try_edi
    movl %ebp, try_ebp
    movl $\label, try_resume
.endm

# expect_trap "text", vector, error, eip, cr2: one result: the last trap since `try` was this one.
# `mask` tells which bits of the error code are compared.
.macro expect_trap text:req, vector:req, error=ANY, eip=ANY, cr2=ANY, mask=NONE
    .pushsection .rodata
.Ltext_\@: .asciz "\text"
    .balign 4
.Lwant_\@: .long .Ltext_\@, \vector, \error, \mask, \eip, \cr2
    .popsection
    pushl $.Lwant_\@
    call tap_trap
.endm

# expect_no_trap "text": one result: nothing trapped since `try`.
.macro expect_no_trap text:req
    expect_trap "\text", NONE
.endm

# fault "text", vector, error, instruction: the instruction, in ring 0, faults at its own address. EBX, ESI, EDI and EBP
# may hold its operands.
.macro fault text:req, vector:req, error:req, instruction:vararg
    try .Lafter_\@
.Lat_\@:
    \instruction
    nop
.Lafter_\@:
    expect_trap "\text", \vector, \error, .Lat_\@
.endm

# fault3: the same in ring 3.
.macro fault3 text:req, vector:req, error:req, instruction:vararg
    .pushsection .text.ring3
.Lring3_\@:
    \instruction
    int $VEC_LEAVE
    .popsection
    run_ring3 .Lring3_\@
    expect_trap "\text", \vector, \error, .Lring3_\@
.endm

# Pushes what RETF and IRET to ring 3 take from the stack. The new stack pointer is user_stack_top - 16.
.macro push_outer cs:req, ss:req, eip:req
    pushl $\ss
    pushl $user_stack_top - 16
    pushl $\cs
    pushl $\eip
.endm
.macro push_outer_flags cs:req, ss:req, eip:req, flags=2
    pushl $\ss
    pushl $user_stack_top - 16
    pushl $\flags
    pushl $\cs
    pushl $\eip
.endm

# run_ring3 label: runs the code there in ring 3 until it traps; what happened is in trap_*.
.macro run_ring3 entry:req
    movl $\entry, %eax
    call enter_ring3
.endm

# hook vector, function: the function is called for each trap of this kind (EBP: the frame, every register may be
# changed), then the trap returns. Function 0: no hook.
.macro hook vector:req, function:req
    movl $\function, trap_hooks + 4 * (\vector)
.endm

# say "text": prints it.
.macro say text:req
    .pushsection .rodata
.Ltext_\@: .asciz "\text"
    .popsection
    pushl %eax
    movl $.Ltext_\@, %eax
    call print
    popl %eax
.endm

# site name, "code": a routine that begins at a multiple of 16.
.macro site name:req, code:req
    .balign 16
\name:
    \code
.endm

# repeat function: calls it TIMES times, which the guest defines. EBP counts down to 1.
.macro repeat function:req, times=TIMES
    movl $\times, %ebp
.Lrepeat_\@:
    call \function
    decl %ebp
    jnz .Lrepeat_\@
.endm

# wrmsr_to number, upper, lower: uses EAX, ECX and EDX.
.macro wrmsr_to number:req, upper:req, lower:req
    movl $\number, %ecx
    movl $\upper, %edx
    movl $\lower, %eax
    wrmsr
.endm

# sysenter_to stack, entry: where SYSENTER goes.
.macro sysenter_to stack:req, entry:req
    wrmsr_to 0x174, 0, SEL_KCODE
    wrmsr_to 0x175, 0, \stack
    wrmsr_to 0x176, 0, \entry
.endm
