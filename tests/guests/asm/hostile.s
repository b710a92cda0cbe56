# Ways to break out, one for each run: `case=NAME`. Whatever becomes of the guest, the hypervisor must stay alive. A
# guest that is still there afterwards says so and ends with status 0. Not compared with a bare run: some of these hang
# or reset a bare machine.

.set RWU, PTE_P | PTE_W | PTE_U

guest_main:
    plan 1
    movl $key_case, %eax
    call argument
    testl %eax, %eax
    jz 3f
    movl %eax, %ebp
    say "# case "
    call print_word
    say "\n"
    movl $cases, %ebx
1:  movl (%ebx), %esi
    testl %esi, %esi
    jz 3f
    movl %ebp, %edi
    call same_word
    je 2f
    addl $8, %ebx
    jmp 1b
2:  movl $NONE, trap_vector
    try 4f
    call *4(%ebx)
    movl $0, try_resume
4:  lgdt gdt_pointer                    # in case the case has changed them
    lidt idt_pointer
    movl $1, %eax
    call tap_open
    say "still here\n"
    ret
3:  say "Bail out! expected case=NAME, one of:"
    movl $cases, %ebx
5:  movl (%ebx), %eax
    testl %eax, %eax
    jz 6f
    say " "
    call print
    addl $8, %ebx
    jmp 5b
6:  say "\n"
    movl $4, %eax
    jmp exit

# Prints the word at EAX.
print_word:
    movl %eax, %esi
1:  lodsb
    cmpb $' ', %al
    jbe 2f
    call print_char
    jmp 1b
2:  ret

# ZF: the text at ESI is the word at EDI.
same_word:
    movb (%esi), %al
    testb %al, %al
    jz 1f
    cmpb %al, (%edi)
    jne 2f
    incl %esi
    incl %edi
    jmp same_word
1:  cmpb $' ' + 1, (%edi)
    sbbb %al, %al
    cmpb $0xff, %al
2:  ret

identity:
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    jmp paging_on

wild_jump:
    movl $0xdeadbeef, %eax
    jmp *%eax
wild_jump_high:
    movl $0xfffffff0, %eax
    jmp *%eax

.section .rodata
key_case: .asciz "case="
.macro a_case name, function
    .pushsection .rodata.names
.Lname_\@: .asciz "\name"
    .popsection
    .long .Lname_\@, \function
.endm
.balign 4
cases:
    a_case wild-jump, wild_jump
    a_case wild-jump-high, wild_jump_high
    a_case cr3-nowhere, cr3_nowhere
    a_case cr3-each-bit, cr3_each_bit
    a_case pde-nowhere, pde_nowhere
    a_case pte-nowhere, pte_nowhere
    a_case pde-self, pde_self
    a_case stack-in-page-table, stack_in_page_table
    a_case gdt-in-page-table, gdt_in_page_table
    a_case code-in-page-table, code_in_page_table
    a_case gdt-nowhere, gdt_nowhere
    a_case idt-nowhere, idt_nowhere
    a_case idt-garbage, idt_garbage
    a_case tss-nowhere, tss_nowhere
    a_case tss-garbage, tss_garbage
    a_case ldt-garbage, ldt_garbage
    a_case long-code, long_code
    a_case jump-selectors, jump_selectors
    a_case jump-selectors-ring3, jump_selectors_ring3
    a_case return-selectors, return_selectors
    a_case load-selectors, load_selectors
    a_case load-selectors-ring3, load_selectors_ring3
    a_case iret-vm, iret_vm
    a_case iret-vm-ring3, iret_vm_ring3
    a_case iret-flags, iret_flags
    a_case triple-fault, triple_fault
    a_case fault-loop, fault_loop
    a_case fault-loop-forever, fault_loop_forever
    a_case gate-absent, gate_absent
    a_case stack-gone, stack_gone
    a_case spin, spin
    a_case halt, halt
    a_case write-memory, write_memory
    a_case write-low-memory, write_low_memory
    a_case ports, ports
    a_case string-ports, string_ports
    a_case msrs, msrs
    a_case long-mode, long_mode
    a_case control-bits, control_bits
    a_case no-protection, no_protection
    a_case debug-registers, debug_registers
    a_case breakpoint-storm, breakpoint_storm
    a_case breakpoint-moved, breakpoint_moved
    a_case single-step, single_step
    a_case nested-task, nested_task
    a_case task-gate, task_gate
    a_case task-cr3, task_cr3
    a_case apic-timer-storm, apic_timer_storm
    a_case self-ipi-storm, self_ipi_storm
    a_case stuck-line, stuck_line
    a_case timer-reloads, timer_reloads
    a_case keyboard-storm, keyboard_storm
    a_case disk-storm, disk_storm
    a_case device-memory, device_memory
    .long 0
nowhere: .word 0xffff
    .long 0xf0000000
garbage: .word 0x7ff
    .long guest_main
nothing: .word 0
    .long 0
forbidden_ports:                        # debug exit, keyboard controller, fast reset, Bochs' shutdown, reset control
    .word 0xf4, 0x64, 0x92, 0x8900, 0xcf9, 0x604, 0xb004, 0x4004, 0xb2, 0x600, 0x501, 0x402, 0
.data
table_pointer: .word 0x7f
    .long 0
.bss
.balign 4
far_pointer: .space 8
