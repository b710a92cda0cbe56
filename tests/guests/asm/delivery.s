# Events whose delivery meets another: a stack that may not be written, a gate to a segment that is not present, a handler that is
# a task, a stack inside a page table, an interrupt that waits behind STI.

.set SEL_TASK, SEL_FREE
.set SEL_ABSENT_CODE, SEL_FREE + 8
.set MAPPED, 0x40000000                 # the page of the stack
.set STACK_FRAME, 0x00600000
.set VEC_SOFT, 0x40
.set VEC_IPI, 0x41
.set LAPIC, 0xfee00000
.set TO_SELF, 0x40000

guest_main:
    plan 21
    call waiting                        # before there is paging: nothing maps the local APIC then
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    call tables
    call retried
    call absent
    call absent_and_read_only
    call in_page_table
    ret

waiting:
    movl $LAPIC + 0xf0, %edx
    movl $0x1ff, (%edx)
    movl $LAPIC + 0x350, %edx           # LINT0: masked
    movl $0x10000, (%edx)
    hook VEC_IPI, on_ipi
    hook VEC_SOFT, on_soft
    movl $0, order
    movl $LAPIC + 0x300, %edx
    movl $TO_SELF | VEC_IPI, (%edx)
    sti
    int $VEC_SOFT
    nop
    cli
    check_eq "STI, INT n: what waits comes behind the first", order, $(VEC_SOFT << 8 | VEC_IPI)
    movl $0, order
    movl $LAPIC + 0x300, %edx
    movl $TO_SELF | VEC_IPI, (%edx)
    int $VEC_SOFT
    check_eq "interrupts are off in the handler and behind it", order, $VEC_SOFT
    sti
    nop
    cli
    check_eq "... then it comes", order, $(VEC_SOFT << 8 | VEC_IPI)
    ret
on_ipi:
    shll $8, order
    orl $VEC_IPI, order
    movl $LAPIC + 0xb0, %edx
    movl $0, (%edx)
    ret
on_soft:
    shll $8, order
    orl $VEC_SOFT, order
    incl soft_count
    ret

# The page of the stack, and the task that handles page faults.
tables:
    movl $MAPPED, %eax
    call pte_of
    movl %eax, stack_pte
    movl %cr3, %eax
    movl %eax, tss + 0x1c
    movl %eax, task + 0x1c
    movl $fault_task, task + 0x20
    movl $2, task + 0x24
    movl $task_stack_top, task + 0x38
    movl $SEL_KDATA, task + 0x48
    movl $SEL_KCODE, task + 0x4c
    movl $SEL_KDATA, task + 0x50
    movl $SEL_KDATA, task + 0x54
    movw $104, task + 102
    movl $task, %eax
    movw $103, gdt + SEL_TASK
    movw %ax, gdt + SEL_TASK + 2
    shrl $16, %eax
    movb %al, gdt + SEL_TASK + 4
    movb $0x89, gdt + SEL_TASK + 5
    movb $0, gdt + SEL_TASK + 6
    movb %ah, gdt + SEL_TASK + 7
    movl $0x0000ffff, gdt + SEL_ABSENT_CODE
    movl $0x00cf1a00, gdt + SEL_ABSENT_CODE + 4
    movw $SEL_TASK, idt + 8 * VEC_PF + 2
    movb $0x85, idt + 8 * VEC_PF + 5
    ret

# Notes the fault, lets the stack be written, and goes back.
fault_task:
    popl seen_error
    movl %cr2, %eax
    movl %eax, seen_cr2
    movl tss + 0x20, %eax
    movl %eax, seen_eip
    incl fault_count
    movl stack_pte, %ebx
    movl $STACK_FRAME | PTE_P | PTE_W, (%ebx)
    invlpg MAPPED
    iretl
    jmp fault_task

# The stack page is there but may not be written.
close_stack:
    movl stack_pte, %ebx
    movl $STACK_FRAME | PTE_P, (%ebx)
    invlpg MAPPED
    movl $0, fault_count
    ret

retried:
    hook VEC_DE, on_de
    call close_stack
    movl $0, divisor
    movl %esp, saved_esp
    movl $MAPPED + 4092, %esp
    movl $1500, %eax
    xorl %edx, %edx
1:  divl divisor
    movl saved_esp, %esp
    movl %eax, %esi
    clts
    check_eq "#DE onto a stack that may not be written: #PF", fault_count, $1
    check_eq "... its error code", seen_error, $PF_P | PF_W
    movl seen_cr2, %eax
    andl $~0xfff, %eax
    check_eq "... its address", %eax, $MAPPED
    check_eq "... at the instruction", seen_eip, $1b
    check_eq "... then #DE is handled", %esi, $150
    check_eq "... at the instruction too", trap_eip, $1b
    ret
on_de:
    movl $10, divisor
    ret

absent:
    hook VEC_NP, on_np
    movl $0, soft_count
    movw $SEL_ABSENT_CODE, idt + 8 * VEC_SOFT + 2
1:  int $VEC_SOFT
    check_eq "a gate to an absent segment: #NP", np_error, $SEL_ABSENT_CODE
    check_eq "... at the instruction", np_eip, $1b
    check_eq "... which then finds it", soft_count, $1
    ret
on_np:
    movl trap_error, %eax
    movl %eax, np_error
    movl trap_eip, %eax
    movl %eax, np_eip
    movw $SEL_KCODE, idt + 8 * VEC_SOFT + 2
    ret

absent_and_read_only:
    call close_stack
    movl $0, soft_count
    movl $0, np_error
    movw $SEL_ABSENT_CODE, idt + 8 * VEC_SOFT + 2
    movl %esp, saved_esp
    movl $MAPPED + 4092, %esp
1:  int $VEC_SOFT
    movl saved_esp, %esp
    clts
    check_eq "the same on a stack that may not be written: #PF", fault_count, $1
    check_eq "... at the instruction", seen_eip, $1b
    check_eq "... then #NP", np_error, $SEL_ABSENT_CODE
    check_eq "... then the handler", soft_count, $1
    ret

# The stack lies in the page table that maps it elsewhere.
in_page_table:
    movl stack_pte, %ebx                # it is the first entry
    movl $STACK_FRAME | PTE_P | PTE_W, (%ebx)
    movl $0x5eed, MAPPED
    movl $0, soft_count
    movl %esp, saved_esp
    leal 4092(%ebx), %esp
1:  int $VEC_SOFT
2:  movl saved_esp, %esp
    check_eq "a stack in a page table", soft_count, $1
    movl 4080(%ebx), %eax
    check_eq "... the frame is there: EIP", %eax, $2b
    movl 4084(%ebx), %eax
    check_eq "... CS", %eax, $SEL_KCODE
    check_eq "... and its first entry still maps", MAPPED, $0x5eed
    leal 3072(%ebx), %edi               # no entries any more
    xorl %eax, %eax
    movl $256, %ecx
    cld
    rep
    stosl
    movl %cr3, %eax
    movl %eax, %cr3
    movl %ebx, %esi
    movl $0xabcd, MAPPED + 8
    movl MAPPED + 8, %eax
    check_eq "... and again when it is emptied", %eax, $0xabcd
    ret

.bss
.balign 16
task: .space 104
    .space 4096
task_stack_top:
order: .space 4
soft_count: .space 4
stack_pte: .space 4
seen_error: .space 4
seen_cr2: .space 4
seen_eip: .space 4
fault_count: .space 4
np_error: .space 4
np_eip: .space 4
divisor: .space 4
saved_esp: .space 4
