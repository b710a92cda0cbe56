# Transitions between rings: gates, far jumps, calls and returns, IRET, and what they refuse.

.set SEL_GATE3, SEL_FREE + 0x00         # call gate, DPL 3, two parameters
.set SEL_GATE0, SEL_FREE + 0x08         # call gate, DPL 0
.set SEL_CONF,  SEL_FREE + 0x10         # conforming code, DPL 0
.set SEL_ABSENT_CODE, SEL_FREE + 0x18   # ring 3 code, not present
.set VEC_TEST, 0x50

# set_gate selector, type byte, function, parameters: a call gate to ring 0.
.macro set_gate selector, type, function, parameters
    movl $\function, %eax
    movw %ax, gdt + \selector
    shrl $16, %eax
    movw %ax, gdt + \selector + 6
    movw $SEL_KCODE, gdt + \selector + 2
    movw $(\type << 8) | \parameters, gdt + \selector + 4
.endm

guest_main:
    plan 63
    call make_descriptors
    call pic_init
    hook VEC_UD, note_if
    movl $VEC_TEST, %eax
    movl $test_handler, %edx
    call gate_set
    call interrupt_gates
    call call_gates
    call far_transfers
    call returns
    ret

make_descriptors:
    movl $descriptors, %esi
    movl $gdt + SEL_FREE, %edi
    movl $8, %ecx
    rep
    movsl
    set_gate SEL_GATE3, 0xec, gate_target, 2
    set_gate SEL_GATE0, 0x8c, gate_target_plain, 0
    ret

# Notes the frame, and the IF that the gate left.
test_handler:
    movl 0(%esp), %eax
    movl %eax, seen_eip
    movl 4(%esp), %eax
    movl %eax, seen_cs
    movl 8(%esp), %eax
    andl $EFLAGS_IF, %eax
    movl %eax, seen_if
    movl 12(%esp), %eax
    movl %eax, seen_esp
    movl 16(%esp), %eax
    movl %eax, seen_ss
    call current_if
    movl %eax, gate_if
    iretl

# EAX: IF now. PUSHF would do, but it shows the real IF where the kernel is deprivileged; the frame of an exception
# is right everywhere.
current_if:
    ud2
    movl noted_if, %eax
    ret

note_if:
    movl FRAME_EFLAGS(%ebp), %eax
    andl $EFLAGS_IF, %eax
    movl %eax, noted_if
    addl $2, FRAME_EIP(%ebp)            # behind UD2
    ret

interrupt_gates:
    sti
    nop
    int $VEC_TEST
1:  call current_if
    movl %eax, %ebx
    cli
    check_eq "ring 0, interrupt gate: the frame has the return address", seen_eip, $1b
    check_eq "... and IF=1", seen_if, $EFLAGS_IF
    check_eq "... the handler runs with IF=0", gate_if, $0
    check_eq "... IRET brings IF back", %ebx, $EFLAGS_IF
    check_eq "... and the frame's CS is ring 0's", seen_cs, $SEL_KCODE
    movl $VEC_TEST, %eax
    movl $0x8f, %edx
    call gate_type
    sti
    nop
    int $VEC_TEST
    cli
    check_eq "ring 0, trap gate: the handler runs with IF=1", gate_if, $EFLAGS_IF
    int $VEC_TEST
    check_eq "... or with IF=0, as it was", gate_if, $0

    fault3 "ring 3: INT through a gate of DPL 0", VEC_GP, VEC_TEST * 8 + 2, int $VEC_TEST
    movl $VEC_TEST, %eax
    movl $0x6e, %edx
    call gate_type
    fault3 "ring 3: INT through a gate that is not present", VEC_NP, VEC_TEST * 8 + 2, int $VEC_TEST
    fault "ring 0: INT through a gate that is not present", VEC_NP, VEC_TEST * 8 + 2, int $VEC_TEST
    movl $VEC_TEST, %eax
    movl $0x0e, %edx
    call gate_type
    fault3 "ring 3: DPL is checked before presence", VEC_GP, VEC_TEST * 8 + 2, int $VEC_TEST
    movl $VEC_TEST, %eax
    movl $0x82, %edx
    call gate_type
    fault "ring 0: INT through something that is no gate", VEC_GP, VEC_TEST * 8 + 2, int $VEC_TEST

    movl $VEC_TEST, %eax
    movl $0xee, %edx
    call gate_type
    movl $EFLAGS_IF | 2, ring3_eflags
    movl $2f, %eax
    call enter_ring3_flags
    check_eq "ring 3, interrupt gate: the frame's CS", seen_cs, $SEL_UCODE
    check_eq "... SS", seen_ss, $SEL_UDATA
    check_eq "... ESP", seen_esp, $user_stack_top
    check_eq "... EIP", seen_eip, $3f
    check_eq "... IF=1 outside", seen_if, $EFLAGS_IF
    check_eq "... IF=0 inside", gate_if, $0
    check_eq "... and ring 3 goes on after IRET", trap_ebx, $0x33
    movl $VEC_TEST, %eax
    movl $0xef, %edx
    call gate_type
    movl $2f, %eax
    call enter_ring3_flags
    check_eq "ring 3, trap gate: IF=1 inside", gate_if, $EFLAGS_IF
    movl trap_eflags, %eax
    andl $EFLAGS_IF, %eax
    check_eq "... and outside again", %eax, $EFLAGS_IF
    cli
    ret
2:  int $VEC_TEST
3:  movl $0x33, %ebx
    int $VEC_LEAVE

# Stack here: EIP, CS, two parameters, ESP, SS.
gate_target:
    movl 4(%esp), %eax
    movl %eax, seen_cs
    movl 8(%esp), %esi
    movl 12(%esp), %edi
    movl 16(%esp), %eax
    movl %eax, seen_esp
    movl 20(%esp), %eax
    movl %eax, seen_ss
    clts                                # only ring 0 may
    incl seen_calls
    lretl $8

gate_target_plain:
    incl seen_calls
    lretl

call_gates:
    movl $0, seen_calls
    run_ring3 2f
    expect_trap "call gate from ring 3 and back", VEC_LEAVE
    check_eq "... it ran in ring 0", seen_calls, $1
    check_eq "... the first parameter was copied", trap_esi, $0x1111
    check_eq "... the second parameter too", trap_edi, $0x2222
    check_eq "... the old CS was pushed", seen_cs, $SEL_UCODE
    check_eq "... the old SS was pushed", seen_ss, $SEL_UDATA
    check_eq "... the old ESP was pushed", seen_esp, $user_stack_top - 8
    check_eq "... and RETF 8 has dropped both parameters", trap_esp, $user_stack_top
    fault3 "call gate of DPL 0 from ring 3", VEC_GP, SEL_GATE0, lcall $SEL_GATE0 + 3, $0
    andb $0x7f, gdt + SEL_GATE3 + 5
    fault3 "call gate that is not present", VEC_NP, SEL_GATE3, lcall $SEL_GATE3 + 3, $0
    orb $0x80, gdt + SEL_GATE3 + 5
    fault3 "a JMP through a call gate does not change the ring", VEC_GP, SEL_KCODE, ljmp $SEL_GATE3 + 3, $0
    movl $0, seen_calls
    lcall $SEL_GATE0, $0
    check_eq "call gate within ring 0", seen_calls, $1
    ret
2:  pushl $0x2222
    pushl $0x1111
    lcall $SEL_GATE3 + 3, $0x12345678   # the offset is not used
    int $VEC_LEAVE

far_transfers:
    ljmp $SEL_KCODE, $1f
    ud2
1:  movl $0, seen_calls
    lcall $SEL_KCODE, $gate_target_plain
    check_eq "ring 0: far call and return", seen_calls, $1
    lcall *far_pointer
    check_eq "... through memory", seen_calls, $2
    pushl $SEL_KCODE
    pushl $1f
    lretl
    ud2
1:  lcall $SEL_CONF, $gate_target_plain
    check_eq "ring 0: far call to conforming code", seen_calls, $3
    run_ring3 2f
    expect_trap "ring 3: far jump, call, return", VEC_LEAVE
    check_eq "... all of them", trap_ecx, $3
    run_ring3 5f
    expect_trap "ring 3: conforming code of ring 0 may be entered", VEC_LEAVE
    check_eq "... and keeps the caller's ring", trap_cs, $SEL_CONF + 3
    run_ring3 7f
    expect_trap "... which is not privileged", VEC_GP, 0, 8f
    fault3 "ring 3: far jump to ring 0 code", VEC_GP, SEL_KCODE, ljmp $SEL_KCODE, $gate_target_plain
    fault3 "ring 3: far call to ring 0 code", VEC_GP, SEL_KCODE, lcall $SEL_KCODE, $gate_target_plain
    fault3 "ring 3: far jump to a data segment", VEC_GP, SEL_UDATA & ~3, ljmp $SEL_UDATA, $0
    fault3 "ring 3: far jump to absent code", VEC_NP, SEL_ABSENT_CODE, ljmp $SEL_ABSENT_CODE + 3, $0
    fault3 "ring 3: far jump to selector 0", VEC_GP, 0, ljmp $0, $0
    fault "ring 0: far jump behind the GDT", VEC_GP, 0x1000, ljmp $0x1000, $0
    fault "ring 0: far jump to ring 3 code", VEC_GP, SEL_UCODE & ~3, ljmp $SEL_UCODE & ~3, $0
    ret
2:  xorl %ecx, %ecx
    ljmp $SEL_UCODE, $3f
    ud2
3:  incl %ecx
    lcall $SEL_UCODE, $4f
    incl %ecx
    int $VEC_LEAVE
4:  incl %ecx
    lretl
5:  ljmp $SEL_CONF + 3, $6f
6:  int $VEC_LEAVE
7:  ljmp $SEL_CONF + 3, $8f
8:  cli
    int $VEC_LEAVE

returns:
    pushl $EFLAGS_IF | 2
    pushl $SEL_KCODE
    pushl $1f
    iretl
    ud2
1:  call current_if
    movl %eax, %ebx
    cli
    check_eq "IRET within ring 0 sets IF", %ebx, $EFLAGS_IF
    sti
    pushl $2
    pushl $SEL_KCODE
    pushl $1f
    iretl
    ud2
1:  call current_if
    check_eq "IRET within ring 0 clears IF", %eax, $0

    try 1f
    push_outer SEL_UCODE, SEL_UDATA, 2f
    lretl
1:  expect_trap "RETF to ring 3", VEC_LEAVE
    check_eq "... with its stack", trap_esp, $user_stack_top - 16
    check_eq "... and its CS", trap_cs, $SEL_UCODE
    jmp 3f
2:  int $VEC_LEAVE
3:  try 1f
    push_outer SEL_ABSENT_CODE + 3, SEL_UDATA, 2b
2:  lretl
1:  expect_trap "RETF to absent code", VEC_NP, SEL_ABSENT_CODE, 2b
    try 1f
    push_outer_flags SEL_ABSENT_CODE + 3, SEL_UDATA, 2b
2:  iretl
1:  expect_trap "IRET to absent code", VEC_NP, SEL_ABSENT_CODE, 2b
    try 1f
    push_outer_flags SEL_UCODE, SEL_KDATA, 2b
2:  iretl
1:  expect_trap "IRET to ring 3 with a stack of ring 0", VEC_GP, SEL_KDATA, 2b
    try 1f
    push_outer_flags SEL_UCODE, 0, 2b
2:  iretl
1:  expect_trap "IRET to ring 3 without a stack segment", VEC_GP, 0, 2b
    try 1f
    push_outer_flags SEL_UDATA, SEL_UDATA, 2b
2:  iretl
1:  expect_trap "IRET to a data segment", VEC_GP, SEL_UDATA & ~3, 2b
    run_ring3 4f
    expect_trap "ring 3: IRET to ring 0", VEC_GP, SEL_KCODE, 5f
    run_ring3 6f
    expect_trap "ring 3: RETF to ring 0", VEC_GP, SEL_KCODE, 7f
    movl $EFLAGS_IF | 2, ring3_eflags
    movl $8f, %eax
    call enter_ring3_flags
    movl trap_eflags, %eax
    andl $EFLAGS_IF, %eax
    check_eq "ring 3: POPF does not change IF", %eax, $EFLAGS_IF
    movl $9f, %eax
    call enter_ring3_flags
    expect_trap "ring 3: IRET within ring 3", VEC_LEAVE
    movl trap_eflags, %eax
    andl $EFLAGS_IF, %eax
    check_eq "... does not change IF either", %eax, $EFLAGS_IF
    ret
4:  pushl $2
    pushl $SEL_KCODE
    pushl $2b
5:  iretl
    int $VEC_LEAVE
6:  pushl $SEL_KCODE
    pushl $2b
7:  lretl
    int $VEC_LEAVE
8:  pushl $2
    popfl
    int $VEC_LEAVE
9:  pushl $2
    pushl $SEL_UCODE
    pushl $1f
    iretl
1:  int $VEC_LEAVE

.data
.balign 8
descriptors:
    .quad 0                             # call gates: made by set_gate
    .quad 0
    .quad 0x00cf9e000000ffff            # conforming code
    .quad 0x00cf7a000000ffff            # absent ring 3 code
far_pointer: .long gate_target_plain
    .word SEL_KCODE
.bss
.balign 4
seen_eip: .space 4
seen_cs: .space 4
seen_if: .space 4
seen_esp: .space 4
seen_ss: .space 4
noted_if: .space 4
seen_calls: .space 4
gate_if: .space 4
