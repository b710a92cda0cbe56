# SYSENTER from ring 3 and SYSEXIT back, with the GDT's page written in between. The GDT's order (ring 0 code, data, ring 3 code, data) is what both want.

guest_main:
    plan 11
    movl $gdt, %esi                     # to a page without code, which is another matter
    movl $own_gdt, %edi
    movl $32, %ecx
    rep
    movsl
    lgdt own_gdt_pointer
    wrmsr_to 0x174, 0, 0
    run_ring3 1f
    expect_trap "SYSENTER with IA32_SYSENTER_CS 0", VEC_GP, 0, 1f
    sysenter_to trap_stack_top - 256, entered
    movl $EFLAGS_IF | 2, ring3_eflags
    movl $0xcccc, %ecx
    movl $1f, %eax
    call enter_ring3_flags
    expect_trap "SYSENTER and SYSEXIT", VEC_LEAVE
    check_eq "... the kernel was reached once", calls, $1
    check_eq "... on its stack", seen_esp, $trap_stack_top - 256
    check_eq "... with ECX of the caller", seen_ecx, $0xcccc
    check_eq "... ring 3 has its code selector", trap_cs, $SEL_KCODE + 0x10 + 3
    check_eq "... its stack selector", trap_ss, $SEL_KCODE + 0x18 + 3
    check_eq "... its stack", trap_esp, $user_stack_top - 64
    check_eq "... it reads its CS", trap_ebx, $SEL_KCODE + 0x10 + 3
    check_eq "... and its SS", trap_edx, $SEL_KCODE + 0x18 + 3
    run_ring3 3f
    expect_trap "SYSEXIT in ring 3", VEC_GP, 0, 3f
    ret

1:  sysenter
2:  movl %cs, %ebx
    movl %ss, %edx
    int $VEC_LEAVE
3:  sysexit

entered:
    movl %esp, seen_esp
    movl %ecx, seen_ecx
    movl $user_stack_top - 64, %ecx
    incl calls
    movl $SEL_UDATA, %eax
    movw %ax, %ds
    movl $2b, %edx
    incl own_gdt + SEL_FREE             # a descriptor that nobody uses
    sysexit

.data
own_gdt_pointer: .word 127
    .long own_gdt
.bss
.balign 4096
own_gdt: .space 4096
calls: .space 4
seen_esp: .space 4
seen_ecx: .space 4
