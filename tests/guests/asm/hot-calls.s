# Calls and returns to ring 3 right behind CLI, STI and POPF that run often, and what kernels write to serialize: every result must stay
# the same as if the instructions ran one by one.

.set LAPIC, 0xfee00000
.set L_EOI, LAPIC + 0xb0
.set L_SVR, LAPIC + 0xf0
.set L_ICR, LAPIC + 0x300
.set L_TIMER, LAPIC + 0x320
.set L_LINT0, LAPIC + 0x350
.set L_COUNT, LAPIC + 0x380
.set L_DIVIDE, LAPIC + 0x3e0
.set MASKED, 0x10000
.set PERIODIC, 0x20000
.set DIVIDE_BY_1, 0xb
.set TO_SELF, 0x40000
.set VEC_A, 0x41
.set VEC_TIMER, 0x42

.set TIMES, 100                         # hot enough
.set EFLAGS_NT, 0x4000
.set STATUS, 0x8d5                      # CF PF AF ZF SF OF
.set ALIAS, 0x00c00000                  # where the text appears a second time

guest_main:
    plan 32
    movl $0x1ff, %eax
    movl %eax, L_SVR
    movl $MASKED, %eax
    movl %eax, L_LINT0
    hook VEC_A, on_ipi
    hook VEC_TIMER, on_timer
    call calls
    call pending
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    movl $LAPIC, %eax
    movl $LAPIC | PTE_P | PTE_W, %edx
    call map_page
    call paging_on
    call calls
    call pending
    call interrupted
    call steps
    call faults
    call second_address
    call rewritten
    call inside
    call serialized
    call to_ring3
    ret

on_ipi:
    incl arrived
    movl FRAME_EIP(%ebp), %eax
    addl %eax, places
    xorl %eax, %eax
    movl %eax, L_EOI
    ret

on_timer:
    incl timer_ticks
    xorl %eax, %eax
    movl %eax, L_EOI
    ret

    .balign 4096
hot_page:
site s_sti_call, "sti; call look; ret"
site s_cli_call, "cli; call look"
s_cli_call_end:
    ret
site s_popf_call, "pushl %ebx; popfl; movl %edi, %edi; call look; ret"
site s_last_word, "cli; call no_stack"
s_last_word_end:
site s_jump, "cli; call leave_it; ret"
site s_turn, "cli; call first"
s_turn_end:
    ret
first:
    incl %ebx
    ret
second:
    decl %ebx
    ret
# Notes where it returns to, the flags and the registers.
look:
    pushfl
    popl seen_flags
    movl %eax, seen_eax
    movl (%esp), %edx
    movl %edx, seen_return
    movl %esp, seen_esp
    ret
# Returns to the caller's caller.
leave_it:
    addl $4, %esp
    ret
# The same without a stack of its own.
no_stack:
    movl (%esp), %eax
    movl %eax, seen_return
    movl saved_esp, %esp
    ret
    .balign 4096

# The call behind a hot site.
calls:
    movl $0, %esi
    repeat 1f
    jmp 2f
1:  movl %ebp, %eax
    cmpl $50, %eax                      # flags that change
    pushfl
    popl %ecx
    call s_cli_call
    cmpl seen_eax, %ebp
    jne 3f
    cmpl $s_cli_call_end, seen_return
    jne 3f
    xorl seen_flags, %ecx
    testl $STATUS | EFLAGS_IF, %ecx
    jnz 3f
    leal -8(%esp), %eax
    cmpl seen_esp, %eax
    jne 3f
    incl %esi
3:  ret
2:  check_eq "CLI; CALL: return address, flags, registers, stack", %esi, $TIMES
    movl $0, %esi
    repeat 1f
    jmp 2f
1:  movl $0x2d7, %ebx                   # IF, and all that is arithmetic but OF
    call s_popf_call
    movl seen_flags, %eax
    andl $STATUS | EFLAGS_IF, %eax
    cmpl $0x2d5, %eax
    jne 3f
    movl $2, %ebx
    call s_popf_call
    movl seen_flags, %eax
    andl $STATUS | EFLAGS_IF, %eax
    jnz 3f
    incl %esi
3:  ret
2:  check_eq "POPF; MOV; CALL: its flags arrive", %esi, $TIMES
    repeat s_jump
    check_eq "a callee that drops its return address", %ebp, $0
    ret

# An interrupt waits for STI; the call comes first.
pending:
    movl $0, arrived
    movl $0, places
    repeat 1f
    jmp 2f
1:  cli
    movl $TO_SELF | VEC_A, %eax
    movl %eax, L_ICR
    movl %esp, %esi
    call s_sti_call
    cmpl %esi, %esp
    jne 3f
    ret
3:  movl %esi, %esp
    incl arrived                        # wrong on purpose
    ret
2:  cli
    check_eq "STI; CALL: all interrupts came", arrived, $TIMES
    movl $look, %eax
    imull $TIMES, %eax, %eax
    check_eq "... at the start of what is called", places, %eax
    check_eq "... which returns behind the call", seen_return, $s_sti_call + 6
    ret

# The timer, at any instruction.
interrupted:
    movl $0, timer_ticks
    movl $DIVIDE_BY_1, %eax
    movl %eax, L_DIVIDE
    movl $PERIODIC | VEC_TIMER, %eax
    movl %eax, L_TIMER
    movl $200003, %eax                  # nanoseconds or so
    movl %eax, L_COUNT
    movl $0, %esi
    movl $0, %edi
1:  movl $3000, %ebp
2:  movl %ebp, %eax
    call s_sti_call
    cmpl seen_eax, %ebp
    jne 3f
    cmpl $s_sti_call + 6, seen_return
    jne 3f
    call s_cli_call
    cmpl $s_cli_call_end, seen_return
    jne 3f
    movl $EFLAGS_IF | 0x93, %ebx
    call s_popf_call
    movl seen_flags, %eax
    andl $STATUS | EFLAGS_IF, %eax
    cmpl $EFLAGS_IF | 0x91, %eax
    jne 3f
    incl %esi
3:  decl %ebp
    jnz 2b
    incl %edi
    cmpl $20, timer_ticks
    jb 1b
    cli
    xorl %eax, %eax
    movl %eax, L_COUNT
    movl $MASKED, %eax
    movl %eax, L_TIMER
    imull $3000, %edi, %edi
    check_eq "interrupted at any instruction", %esi, %edi
    sti
    nop
    cli
    ret

# Single steps: their number, and the sum of where they are.
steps:
    hook VEC_DB, on_step
    movl $0, stepped
    movl $0, step_sum
    movl $EFLAGS_TF | 2, %ebx
    call s_popf_call
    call s_cli_call
    pushl $2
    popfl
    hook VEC_DB, 0
    check_eq "single steps through a call", stepped, $23
    movl step_sum, %eax
    check_eq "... all in the text", %eax, $0
    check_eq "... return address", seen_return, $s_cli_call_end
    ret

on_step:
    incl stepped
    movl FRAME_EIP(%ebp), %eax
    cmpl $guest_main, %eax
    jb 1f
    cmpl $end_of_tests, %eax
    jb 2f
1:  incl step_sum
2:  movl $0, %eax
    movl %eax, %dr6
    ret

# CALL with room for its one word and no more.
faults:
    movl $stack_page, %eax
    movl $0, %edx
    call map_page
    movl $0, %esi
    repeat 1f
    jmp 2f
1:  movl %esp, saved_esp
    movl $0, stack_page_top
    movl $stack_page_top + 4, %esp
    jmp s_last_word
2:  check_eq "CALL at the end of a stack", seen_return, $s_last_word_end
    check_eq "... has written it", stack_page_top, $s_last_word_end
    ret

# The same code at another address.
second_address:
    movl $hot_page, %edx
    orl $PTE_P | PTE_W, %edx
    movl $ALIAS, %eax
    call map_page
    movl $0, %esi
    repeat 1f
    jmp 2f
1:  movl $ALIAS + (s_cli_call - hot_page), %eax
    call *%eax
    movl seen_return, %eax
    cmpl $ALIAS + (s_cli_call_end - hot_page), %eax
    jne 3f
    call s_cli_call
    cmpl $s_cli_call_end, seen_return
    jne 3f
    incl %esi
3:  ret
2:  check_eq "at a second address, it returns to that", %esi, $TIMES
    ret

# Another target.
rewritten:
    movl $0, %ebx
    repeat s_turn
    check_eq "a call", %ebx, $TIMES
    movl $second - s_turn_end, s_turn + 2
    repeat s_turn
    check_eq "... to another target", %ebx, $0
    movl $first - s_turn_end, s_turn + 2
    call s_turn
    check_eq "... and back", %ebx, $1
    ret

# Jumps to the call alone, and into it.
inside:
    movl $0, %ebx
    repeat s_turn
    movl $s_turn + 1, %esi
    repeat 1f
    jmp 2f
1:  call *%esi
    ret
2:  check_eq "jumps to the call", %ebx, $2 * TIMES
    sti
    call s_turn
    pushfl
    popl %eax
    andl $EFLAGS_IF, %eax
    check_eq "... and the CLI before it", %eax, $0
    ret

# PUSHF, PUSH CS, PUSH, IRET to the address behind it.
    .balign 16
serialize:
    pushfl
    pushl %cs
    pushl $serialize_end
    iretl
serialize_end:
    ret

serialized:
    movl $0, %esi
    repeat 1f
    jmp 2f
1:  movl %esp, %edi
    cmpl $50, %ebp
    pushfl
    popl %ecx
    call serialize
    pushfl
    popl %eax
    xorl %ecx, %eax
    jnz 3f
    cmpl %edi, %esp
    jne 3f
    cmpw $SEL_KCODE, -12(%esp)
    jne 3f
    cmpl $serialize_end, -16(%esp)
    jne 3f
    incl %esi
3:  ret
2:  check_eq "PUSHF, PUSH CS, PUSH, IRET", %esi, $TIMES
    movl $0, %esi
    repeat 1f
    jmp 2f
1:  movl $0x3fd7 & ~EFLAGS_TF & ~EFLAGS_IF, %ecx
    pushl %ecx
    popfl
    call serialize
    pushfl
    popl %eax
    pushl $2
    popfl
    cmpl %ecx, %eax
    jne 3f
    incl %esi
3:  ret
2:  check_eq "... with IOPL and all flags", %esi, $TIMES
    try 2f
    pushl $EFLAGS_NT | 2
    popfl
    call serialize
2:  expect_trap "... with NT and no task before", 10, 0, serialize + 7
    movl $0, %esi
    repeat 1f
    jmp 2f
1:  movl %ss, %eax
    movl $-1, %ecx
    movl %ss, %ecx
    addl %eax, %esi
    addl %ecx, %esi
    ret
2:  check_eq "MOV from SS", %esi, $2 * TIMES * SEL_KDATA
    ret

# SYSENTER, and POPF, POP, STI and SYSEXIT back.
to_ring3:
    sysenter_to trap_stack_top - 256, entered
    movl $0, entries
    movl $0, sum
    movl $0, arrived
    run_ring3 1f
    expect_trap "SYSENTER and SYSEXIT", VEC_LEAVE
    check_eq "... so many times", entries, $TIMES
    check_eq "... with EAX and the flags of the kernel", sum, $TIMES
    check_eq "... and each interrupt came", arrived, $TIMES
    ret
    .pushsection .text.ring3
1:  movl $TIMES, %ebp
2:  xorl %eax, %eax
    sysenter
back_in_ring3:
    pushfl
    popl %ecx
    andl $STATUS, %ecx
    cmpl $0x91, %ecx
    jne 3f
    cmpl $0x7654321, %eax
    jne 3f
    incl sum
3:  decl %ebp
    jnz 2b
    int $VEC_LEAVE
    .popsection

entered:
    incl entries
    movl $TO_SELF | VEC_A, %eax
    movl %eax, L_ICR
    movl $back_in_ring3, %edx
    movl $user_stack_top - 64, %ecx
    pushl $0x7654321
    pushl $0x93
    jmp s_sysexit
    .balign 16
s_sysexit:
    popfl
    popl %eax
    sti
    sysexit
end_of_tests:

.bss
.balign 4096
stack_page: .space 4096
stack_page_top: .space 4096
arrived: .space 4
places: .space 4
timer_ticks: .space 4
sum: .space 4
stepped: .space 4
step_sum: .space 4
seen_flags: .space 4
seen_eax: .space 4
seen_return: .space 4
seen_esp: .space 4
saved_esp: .space 4
entries: .space 4
