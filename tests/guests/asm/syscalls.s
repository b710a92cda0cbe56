# System calls by INT 0x80: registers both ways, the kernel's access to the caller's memory, preemption between them.

.set SYS_ADD, 0                         # EBX + ECX
.set SYS_SUM, 1                         # sum of ECX words at EBX
.set SYS_SWAP, 2                        # exchanges ESI and EDI of the caller
.set SYS_SKIP, 3                        # the caller goes on two bytes later
.set SYS_FLAGS, 4                       # sets the caller's carry flag

guest_main:
    plan 17
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    call pic_init
    movl $0x80, %eax
    movl $0xee, %edx
    call gate_type
    hook 0x80, on_syscall

    run_ring3 1f
    expect_trap "system calls from ring 3", VEC_LEAVE
    check_eq "... a result in EAX", results, $0x33333333
    check_eq "... a sum over user memory", results + 4, $55
    check_eq "... registers changed by the kernel: ESI", results + 8, $2
    check_eq "... and EDI", results + 12, $1
    check_eq "... EIP changed by the kernel", results + 16, $7
    check_eq "... flags changed by the kernel", results + 20, $1
    check_eq "... other registers survive: EBX", trap_ebx, $0xb
    check_eq "... ECX", trap_ecx, $0xc
    check_eq "... EDX", trap_edx, $0xd
    check_eq "... EBP", trap_ebp, $0xe
    check_eq "... ESP", trap_esp, $user_stack_top
    movl $0, calls
    run_ring3 4f
    check_eq "1000 calls", calls, $1000
    check_eq "... their sum", trap_esi, $500500

    # The same with a timer running.
    hook VEC_IRQ0, on_tick
    movl $1193, %eax
    call pit_start
    movb $0xfe, %al
    outb %al, $PIC1 + 1
    movl $0, ticks
    movl $EFLAGS_IF | 2, ring3_eflags
    movl $6f, %eax
    call enter_ring3_flags
    movb $0xff, %al
    outb %al, $PIC1 + 1
    expect_trap "calls until 20 ticks have come", VEC_LEAVE
    check_eq "... none was lost", trap_esi, trap_edi
    movl trap_ebp, %eax
    check_eq "... and no register either", %eax, $0x0badcafe
    ret

1:  movl $SYS_ADD, %eax
    movl $0x11111111, %ebx
    movl $0x22222222, %ecx
    int $0x80
    movl %eax, results
    movl $SYS_SUM, %eax
    movl $numbers, %ebx
    movl $10, %ecx
    int $0x80
    movl %eax, results + 4
    movl $SYS_SWAP, %eax
    movl $1, %esi
    movl $2, %edi
    int $0x80
    movl %esi, results + 8
    movl %edi, results + 12
    movl $7, results + 16
    movl $SYS_SKIP, %eax
    int $0x80
    jmp 3f                              # two bytes, skipped
    movl $SYS_FLAGS, %eax
    clc
    int $0x80
    setc results + 20
    movl $0xb, %ebx
    movl $0xc, %ecx
    movl $0xd, %edx
    movl $0xe, %ebp
    movl $SYS_FLAGS, %eax
    int $0x80
    int $VEC_LEAVE
3:  movl $0xbad, results + 16
    int $VEC_LEAVE

4:  xorl %esi, %esi
    movl $1, %ebx
5:  movl $SYS_ADD, %eax
    xorl %ecx, %ecx
    int $0x80
    addl %eax, %esi
    incl %ebx
    cmpl $1001, %ebx
    jne 5b
    int $VEC_LEAVE

6:  xorl %esi, %esi                     # 2 * EDI by calls, and EDI twice counted here
    xorl %edi, %edi
    movl $0x0badcafe, %ebp
7:  movl $SYS_ADD, %eax
    movl %esi, %ebx
    movl $2, %ecx
    int $0x80
    movl %eax, %esi
    addl $2, %edi
    cmpl $20, ticks
    jb 7b
    int $VEC_LEAVE

on_syscall:
    incl calls
    movl FRAME_EAX(%ebp), %eax
    cmpl $SYS_FLAGS, %eax
    ja 1f
    jmp *table(, %eax, 4)
1:  movl $-1, FRAME_EAX(%ebp)
    ret
sys_add:
    movl FRAME_EBX(%ebp), %eax
    addl FRAME_ECX(%ebp), %eax
    movl %eax, FRAME_EAX(%ebp)
    ret
sys_sum:
    movl FRAME_EBX(%ebp), %esi
    movl FRAME_ECX(%ebp), %ecx
    xorl %edx, %edx
1:  lodsl
    addl %eax, %edx
    loop 1b
    movl %edx, FRAME_EAX(%ebp)
    ret
sys_swap:
    movl FRAME_ESI(%ebp), %eax
    xchgl FRAME_EDI(%ebp), %eax
    movl %eax, FRAME_ESI(%ebp)
    ret
sys_skip:
    addl $2, FRAME_EIP(%ebp)
    ret
sys_flags:
    orl $1, FRAME_EFLAGS(%ebp)
    ret

.section .rodata
.balign 4
table: .long sys_add, sys_sum, sys_swap, sys_skip, sys_flags
numbers: .long 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
.bss
.balign 4
calls: .space 4
results: .space 24
