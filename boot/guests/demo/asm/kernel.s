# The kernel: one process, three system calls (numbers as on Linux).

.set SYS_EXIT, 1
.set SYS_WRITE, 4
.set SYS_BRK, 45
.set USER_STACK, 0xbffff000             # one page, below KERNEL_BASE

.text
function kernel_main
    movl $0, boot_directory             # the low mapping has served its purpose
    movl %cr3, %eax
    movl %eax, %cr3
    movb $0xff, %al                     # no device interrupts
    outb %al, $0x21
    outb %al, $0xa1
    call console_init
    call descriptors_init
    say "kernel: paging is on, the kernel is at 0xc0000000\n"
    call make_process
    say "kernel: process 1 starts at "
    movl $user_main, %eax
    call print_hex
    say " in ring 3\n"
    # Into ring 3.
    movl $SEL_UDATA, %eax
    movw %ax, %ds
    movw %ax, %es
    pushl $SEL_UDATA
    pushl $USER_STACK + 4096
    pushl $0x202
    pushl $SEL_UCODE
    pushl $user_main
    iretl

function descriptors_init
    movl $tss, %eax
    movw %ax, gdt + SEL_TSS + 2
    shrl $16, %eax
    movb %al, gdt + SEL_TSS + 4
    movb %ah, gdt + SEL_TSS + 7
    movl $kernel_stack_top, tss + 4
    movl $SEL_KDATA, tss + 8
    movw $104, tss + 102
    lgdt gdt_pointer
    ljmp $SEL_KCODE, $1f
1:  movl $SEL_KDATA, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    movl $SEL_TSS, %eax
    ltr %ax
    movl $13, %eax
    movl $protection_entry, %edx
    movb $0x8e, %cl
    call set_gate
    movl $14, %eax
    movl $page_fault_entry, %edx
    call set_gate
    movl $0x80, %eax
    movl $trap_entry, %edx
    movb $0xee, %cl
    call set_gate
    lidt idt_pointer
    ret

# EAX: vector, EDX: handler, CL: kind of gate.
function set_gate
    leal (, %eax, 8), %eax
    addl $idt, %eax
    movw %dx, (%eax)
    movw $SEL_KCODE, 2(%eax)
    movb %cl, 5(%eax)
    shrl $16, %edx
    movw %dx, 6(%eax)
    ret

# Maps the program's pages, and a stack.
function make_process
    movl $user_start, %eax
    movl $user_load + PTE_P + PTE_W + PTE_U, %edx
1:  call map_page
    addl $4096, %eax
    addl $4096, %edx
    cmpl $user_end, %eax
    jb 1b
    movl %eax, break_address            # the heap starts, empty, behind the program
    call alloc_frame
    leal PTE_P + PTE_W + PTE_U(%eax), %edx
    movl $USER_STACK, %eax
    jmp map_page

# INT 0x80 arrives here: number in EAX, arguments in EBX, ECX, EDX, result in EAX.
function trap_entry
    pushl %ds
    pushl %es
    pushl %ebx
    pushl %ecx
    pushl %edx
    pushl %esi
    pushl %edi
    movl $SEL_KDATA, %esi
    movw %si, %ds
    movw %si, %es
    cld
    cmpl $SYS_BRK, %eax
    je 1f
    cmpl $SYS_WRITE, %eax
    je 2f
    cmpl $SYS_EXIT, %eax
    je sys_exit
    movl $-38, %eax                     # no such call
    jmp trap_return
1:  call sys_brk
    jmp trap_return
2:  call sys_write
function trap_return
    popl %edi
    popl %esi
    popl %edx
    popl %ecx
    popl %ebx
    popl %es
    popl %ds
    iretl

# Moves the end of the heap to EBX and maps the pages up to there. Returns the end.
function sys_brk
    movl break_address, %edi
    cmpl %edi, %ebx
    jbe 2f
    say "kernel: sys_brk: from "
    movl %edi, %eax
    call print_hex
    say " to "
    movl %ebx, %eax
    call print_hex
    say "\n"
1:  call alloc_frame
    leal PTE_P + PTE_W + PTE_U(%eax), %edx
    say "kernel: map_page: "
    movl %edi, %eax
    call print_hex
    say ", entry "
    xchgl %eax, %edx
    call print_hex
    say "\n"
    xchgl %eax, %edx
    call map_page
    addl $4096, %edi
    cmpl %ebx, %edi
    jb 1b
    movl %edi, break_address
2:  movl break_address, %eax
    ret

# Prints EDX bytes at ECX (to the console, whatever EBX says).
function sys_write
    pushl %edx
    movl %ecx, %esi
1:  testl %edx, %edx
    jz 2f
    lodsb
    call print_char
    decl %edx
    jmp 1b
2:  popl %eax
    ret

function sys_exit
    say "kernel: process 1 ends with status "
    movl %ebx, %eax
    call print_hex
    say "\n"
    jmp power_off

# A process that breaks the rules ends the machine.
function page_fault_entry
    movl $SEL_KDATA, %eax
    movw %ax, %ds
    say "kernel: page fault at "
    movl %cr2, %eax
    jmp give_up
function protection_entry
    movl $SEL_KDATA, %eax
    movw %ax, %ds
    say "kernel: protection fault at "
    movl 4(%esp), %eax
function give_up
    call print_hex
    say "\n"
    movl $1, %eax
    jmp power_off

.data
.balign 8
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff
    .quad 0x00cf92000000ffff
    .quad 0x00cffa000000ffff
    .quad 0x00cff2000000ffff
    .quad 0x0000890000000067
gdt_end:
gdt_pointer: .word gdt_end - gdt - 1
    .long gdt
idt_pointer: .word 256 * 8 - 1
    .long idt
.bss
.balign 8
idt: .space 256 * 8
tss: .space 104
break_address: .space 4
