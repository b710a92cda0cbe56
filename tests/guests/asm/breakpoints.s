# Hardware breakpoints and single steps: what they catch, where EIP is then, what DR6 says, RF, GD.

.set DR7_NONE, 0x400
.set DR7_DE_BITS, 0xe00f                # of DR6: B0 to B3, BD, BS, BT
.set B0, 1
.set B1, 2
.set B3, 8
.set BD, 0x2000
.set BS, 0x4000
.set GD, 0x2000
.set EFLAGS_RF, 0x10000
# DR7: enable bits, kinds and lengths.
.set L0, 1
.set L1, 4
.set G3, 0x80
.set WRITE0, 0x00010000
.set PORT0, 0x00020000
.set ACCESS0, 0x00030000
.set TWO0, 0x00040000
.set FOUR0, 0x000c0000
.set WRITE1, 0x00100000
.set FOUR1, 0x00c00000

.set MAPPED, 0x40000000                  # what a page table of its own maps

# arm address, DR7: DR0 and DR7; nothing was caught yet.
.macro arm address:req, control:req
    movl $\address, %eax
    movl %eax, %dr0
    movl $\control | DR7_NONE, %eax
    call arm_control
.endm
.macro arm_at address:req, control:req
    movl \address, %dr0
    movl $\control | DR7_NONE, %eax
    call arm_control
.endm
# The same as arm without a use of the stack.
.macro arm_here address:req, control:req
    movl $\address, %eax
    movl %eax, %dr0
    movl $0, db_count
    xorl %eax, %eax
    movl %eax, %dr6
    movl $\control | DR7_NONE, %eax
    movl %eax, %dr7
.endm
.macro disarm
    movl $DR7_NONE, %eax
    movl %eax, %dr7
.endm
# caught "text", EIP, bits of DR6: there was one debug exception, this one.
.macro caught text:req, eip:req, bits:req
    disarm
    call the_one
    check_eq "\text", %eax, $\eip
    movl db_dr6, %eax
    check_eq "... DR6", %eax, $\bits
.endm
.macro caught_nothing text:req
    disarm
    check_eq "\text", db_count, $0
.endm
# stepping: from the next instruction but one on, #DB behind each instruction.
.macro stepping
    pushfl
    orl $EFLAGS_TF, (%esp)
    popfl
.endm
.macro stepped
    pushfl
    andl $~EFLAGS_TF, (%esp)
    popfl
.endm

guest_main:
    plan 95
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    hook VEC_DB, on_db
    call instructions
    call data
    call ports
    call general_detect
    call single_steps
    call user
    hook VEC_DB, 0
    ret

# EAX: DR7.
arm_control:
    movl $0, db_count
    movl $NONE, db_eip
    movl $NONE, db_dr6
    pushl %eax
    xorl %eax, %eax
    movl %eax, %dr6
    popl %eax
    movl %eax, %dr7
    ret

# EAX: where the one debug exception was, or how many there were.
the_one:
    movl db_count, %eax
    cmpl $1, %eax
    jne 1f
    movl db_eip, %eax
1:  ret

# Notes EIP and DR6, and lets the instruction under a breakpoint go on.
on_db:
    movl db_count, %ecx
    cmpl $LIST, %ecx
    jae 1f
    movl FRAME_EIP(%ebp), %eax
    movl %eax, db_eip(, %ecx, 4)
    movl %dr6, %eax
    andl $DR7_DE_BITS, %eax
    movl %eax, db_dr6(, %ecx, 4)
    movl FRAME_EFLAGS(%ebp), %eax
    movl %eax, db_eflags
    xorl %eax, %eax
    movl %eax, %dr6
    orl $EFLAGS_RF, FRAME_EFLAGS(%ebp)
    incl db_count
    ret
1:  disarm
    andl $~EFLAGS_TF, FRAME_EFLAGS(%ebp)
    ret

instructions:
    arm 1f, L0
1:  nop
    caught "an instruction", 1b, B0
    movl $2f, %eax
    movl %eax, %dr3
    movl $G3 | DR7_NONE, %eax
    call arm_control
    nop
2:  nop
    caught "an instruction, DR3, for all tasks", 2b, B3

    arm 1f, 0
1:  nop
    caught_nothing "a breakpoint that is off"

    arm 1f, L0
    movl $5, %ecx
1:  decl %ecx
    jnz 1b
    disarm
    check_eq "an instruction in a loop is caught each time", db_count, $5

    call never_run_1                    # it has run before
    arm inside_1, L0
    call never_run_1
    caught "an instruction that has run before", inside_1, B0
    call never_run_1
    check_eq "... and runs again when the breakpoint is gone", db_count, $1
    arm inside_2, L0
    call never_run_2
    caught "an instruction that has never run", inside_2, B0

    arm 1f, L0
1:  pushfl
    popl %ebx
    caught "PUSHF", 1b, B0
    arm 1f, L0
1:  cli
    caught "CLI", 1b, B0
    arm 1f, L0
1:  movl %cr0, %ebx
    caught "MOV from CR0", 1b, B0
    arm 1f, L0
    try 2f
1:  ud2
2:  expect_trap "an instruction that faults", VEC_UD, 0, 1b
    caught "... is caught first", 1b, B0
    arm 1f, L0
    pushl $2
    pushl $SEL_KCODE
    pushl $2f
1:  iretl
2:  nop
    caught "IRET", 1b, B0
    arm 1f, L0
    movl $7, watched
    movl $watched, %esi
    movl $copied, %edi
    movl $3, %ecx
    cld
1:  rep
    movsb
    disarm
    check_eq "REP MOVS is caught at its first turn at least", db_eip, $1b

    arm 1f, L0                          # the second byte is where an instruction begins, too
    jmp 1f
    .byte 0xb8
1:  nop
    nop
    nop
    nop
    caught "an instruction inside of another", 1b, B0

    # RF in an IRET's frame: the breakpoint does not count once.
    arm 1f, L0
    pushl $EFLAGS_RF | 2
    pushl $SEL_KCODE
    pushl $1f
    iretl
1:  nop
    caught_nothing "RF in IRET's frame"
    arm 1f, L0
    pushl $EFLAGS_RF | 2
    pushl $SEL_KCODE
    pushl $2f
    iretl
2:  nop
1:  nop
    caught "... counts for one instruction only", 1b, B0
    ret

.balign 64
never_run_1:
    nop
inside_1:
    nop
    ret
.balign 64
never_run_2:
    nop
inside_2:
    nop
    ret

data:
    arm watched, L0 | WRITE0 | FOUR0
    movl $1, watched
1:  nop
    caught "a write", 1b, B0
    arm watched, L0 | WRITE0 | FOUR0
    movl watched, %eax
    caught_nothing "a read is no write"
    arm watched, L0 | ACCESS0 | FOUR0
    movl watched, %ebx
1:  nop
    caught "a read", 1b, B0
    arm watched, L0 | WRITE0 | FOUR0
    movb $1, watched + 3
1:  nop
    caught "a write to the last byte", 1b, B0
    arm watched, L0 | WRITE0 | FOUR0
    movb $1, watched + 4
    caught_nothing "a write behind it"
    arm watched + 2, L0 | WRITE0 | TWO0
    movw $1, watched
    caught_nothing "a write in front of two bytes"
    arm watched + 2, L0 | WRITE0
    movl $1, watched
1:  nop
    caught "a write of more bytes than are watched", 1b, B0
    movl $watched + 8, %eax
    movl %eax, %dr1
    arm watched, L0 | L1 | WRITE0 | FOUR0 | WRITE1 | FOUR1
    movl $1, watched + 8
1:  nop
    caught "the second of two breakpoints", 1b, B1

    # The stack.
    movl %esp, saved_esp
    movl $watched + 4, %esp
    arm_here watched, L0 | WRITE0 | FOUR0
    pushl $1
1:  movl saved_esp, %esp
    caught "PUSH", 1b, B0
    movl $watched + 4, %esp
    arm_here watched, L0 | WRITE0 | FOUR0
    pushfl
1:  movl saved_esp, %esp
    caught "PUSHF", 1b, B0
    movl $watched + 4, %esp
    arm_here watched, L0 | WRITE0 | FOUR0
    pushl %cs
1:  movl saved_esp, %esp
    caught "PUSH CS", 1b, B0
    arm watched, L0 | WRITE0 | FOUR0
    movw %cs, watched
1:  nop
    caught "MOV from CS", 1b, B0
    arm watched, L0 | WRITE0 | FOUR0
    sgdtl watched
1:  nop
    caught "SGDT", 1b, B0
    arm watched, L0 | WRITE0 | FOUR0
    cli
    movl $1, watched
1:  nop
    caught "a write behind CLI", 1b, B0

    # An entry of a page table.
    movl $MAPPED, %eax
    call pte_of
    movl %eax, %ebx
    movl $0x00600000 | PTE_P | PTE_W, (%ebx)
    movl $0xfeed, MAPPED
    leal 4(%ebx), %ecx
    arm_at %ecx, L0 | WRITE0 | FOUR0
    movl $0x00600000 | PTE_P | PTE_W, 4(%ebx)
1:  nop
    caught "a write to a page table", 1b, B0
    movl MAPPED + 0x1000, %eax
    check_eq "... that counts", %eax, $0xfeed
    leal 8(%ebx), %ecx
    arm_at %ecx, L0 | WRITE0 | FOUR0
    movl $0x00600000 | PTE_P | PTE_W, 12(%ebx)
    caught_nothing "a write to another entry"
    arm MAPPED + 0x1000, L0 | ACCESS0 | FOUR0
    movl MAPPED, %eax
    caught_nothing "the same memory at another address"
    ret

ports:
    movl %cr4, %ebx
    movl %ebx, %eax
    orl $CR4_DE, %eax
    movl %eax, %cr4
    arm 0x61, L0 | PORT0
    inb $0x61, %al
1:  nop
    caught "a port is read", 1b, B0
    arm 0x80, L0 | PORT0
    outb %al, $0x80
1:  nop
    caught "a port is written", 1b, B0
    arm 0x80, L0 | PORT0
    inb $0x61, %al
    caught_nothing "another port"
    arm 0x61, L0 | WRITE0
    inb $0x61, %al
    caught_nothing "a port is no memory"
    cld
    movl $watched, %edi
    movw $0x61, %dx
    arm 0x61, L0 | PORT0
    insb
1:  nop
    caught "INS", 1b, B0
    fault "CR4.DE: there is no DR4", VEC_UD, 0, movl %dr4, %eax
    fault "... nor DR5", VEC_UD, 0, movl %eax, %dr5
    movl %ebx, %cr4
    movl $0x12345678, %eax
    movl %eax, %dr4
    movl %dr6, %ebx
    movl %dr4, %eax
    check_eq "without it DR4 is DR6", %eax, %ebx
    movl %dr7, %ebx
    movl %dr5, %eax
    check_eq "... and DR5 is DR7", %eax, %ebx
    ret

general_detect:
    xorl %eax, %eax
    movl $GD | DR7_NONE, %eax
    call arm_control
1:  movl %dr0, %ebx
    caught "GD: a debug register is read", 1b, BD
    movl $DR7_NONE, %ebx
    movl $GD | DR7_NONE, %eax
    call arm_control
1:  movl %ebx, %dr7
    call the_one
    check_eq "GD: a debug register is written", %eax, $1b
    movl $GD | DR7_NONE, %eax
    call arm_control
    movl %cr0, %ebx
    pushl db_count
    movl %dr7, %eax                     # this one ends it
    popl %eax
    check_eq "GD: a control register is not guarded", %eax, $0
    movl %dr7, %eax
    check_eq "GD is off in the handler and behind it", %eax, $DR7_NONE
    disarm
    ret

# The number of steps and the sum of their distances from `from`, in DR6 BS each time.
steps_from:                             # EAX: from
    pushl %ecx
    pushl %edx
    movl db_count, %ecx
    shll $16, %ecx
    xorl %edx, %edx
1:  cmpl db_count, %edx
    jae 2f
    addl db_eip(, %edx, 4), %ecx
    subl %eax, %ecx
    addl db_dr6(, %edx, 4), %ecx
    subl $BS, %ecx
    incl %edx
    jmp 1b
2:  movl %ecx, %eax
    popl %edx
    popl %ecx
    ret
.macro steps text:req, from:req, want:req
    movl $\from, %eax
    call steps_from
    check_eq "\text", %eax, $\want
.endm

single_steps:
    movl $DR7_NONE, %eax
    call arm_control
    stepping
1:  nop
2:  nop
3:  stepped
4:  steps "plain instructions", 1b, (5 << 16) + (2b - 1b) + (3b - 1b) + (3b + 1 - 1b) + (3b + 8 - 1b) + (4b - 1b)

    call arm_control_off
    stepping
1:  cli
2:  movl %cr0, %ebx
3:  cpuid
4:  inb $0x61, %al
5:  movl %cs, %ebx
6:  stepped
7:  steps "CLI, MOV from CR0, CPUID, IN, MOV from CS", 1b, (8 << 16) + (2b - 1b) + (3b - 1b) + (4b - 1b) + (5b - 1b) + (6b - 1b) + (6b + 1 - 1b) + (6b + 8 - 1b) + (7b - 1b)

    call arm_control_off
    movl $0x30, %eax
    hook 0x40, on_software
    stepping
1:  int $0x40
2:  nop
3:  stepped
4:  steps "INT n: its handler is not stepped through", 1b, (4 << 16) + (3b - 1b) + (3b + 1 - 1b) + (3b + 8 - 1b) + (4b - 1b)
    movl software_eflags, %eax
    andl $EFLAGS_TF, %eax
    check_eq "... TF is in its frame", %eax, $EFLAGS_TF
    hook 0x40, 0

    call arm_control_off
    pushl $EFLAGS_TF | 2
    pushl $SEL_KCODE
    pushl $1f
    iretl
1:  nop
2:  stepped
3:  steps "IRET sets TF", 1b, (4 << 16) + (2b - 1b) + (2b + 1 - 1b) + (2b + 8 - 1b) + (3b - 1b)

    # A step and a data breakpoint at once.
    arm watched, L0 | WRITE0 | FOUR0
    stepping
1:  movl $1, watched
2:  stepped
    disarm
    movl db_dr6, %eax
    check_eq "a step and a breakpoint: DR6", %eax, $BS | B0
    check_eq "... once", db_eip, $2b
    check_eq "... and the next step", db_dr6 + 4, $BS

    # Bits that are set already.
    call arm_control_off
    movl $BS | B1, %eax
    movl %eax, %dr6
    movl $1f, %eax
    movl %eax, %dr0
    movl $L0 | DR7_NONE, %eax
    movl %eax, %dr7
1:  nop
    caught "DR6.BS stays as it was", 1b, BS | B0
    ret

arm_control_off:
    pushl %eax
    movl $DR7_NONE, %eax
    call arm_control
    popl %eax
    ret

on_software:
    movl FRAME_EFLAGS(%ebp), %eax
    movl %eax, software_eflags
    ret

user:
    arm 1f, L0
    run_ring3 2f
    caught "ring 3: an instruction", 1f, B0
    arm watched, L0 | WRITE0 | FOUR0
    run_ring3 3f
    caught "ring 3: a write", 4f, B0
    movl %cr4, %ebx
    movl %ebx, %eax
    orl $CR4_DE, %eax
    movl %eax, %cr4
    arm 0x61, L0 | PORT0
    movl $0x3002, ring3_eflags
    movl $5f, %eax
    call enter_ring3_flags
    caught "ring 3: a port", 6f, B0
    movl %ebx, %cr4
    arm 7f, L0                          # behind the way back into the kernel
    run_ring3 8f
7:  nop
    caught "the kernel again", 7b, B0
    arm 1f, L0
    run_ring3 9f
    caught "ring 3: the same behind a jump", 1f, B0
    ret
2:  nop
1:  nop
    int $VEC_LEAVE
3:  movl $1, watched
4:  nop
    int $VEC_LEAVE
5:  inb $0x61, %al
6:  nop
    int $VEC_LEAVE
8:  int $VEC_LEAVE
9:  jmp 1b

.set LIST, 32
.bss
.balign 16
watched: .space 32
copied: .space 32
saved_esp: .space 4
software_eflags: .space 4
db_count: .space 4
db_eflags: .space 4
db_eip: .space 4 * LIST
db_dr6: .space 4 * LIST
