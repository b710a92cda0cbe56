# Cost of privileged operations: RDTSC over loops of 10,000, divided. Under an instruction counter (QEMU's -icount
# shift=0) the result is instructions, the loop's two included.

.set COUNT, 10000
.set WINDOW, 0x40000000
.set FRAME, 0x01000000
.set RWU, PTE_P | PTE_W | PTE_U

# bench "name", instructions: with ECX counting, EBX the window, EDI the address of its entry, EDX the
# entry's value, ESI the page directory and EBP another one.
.macro bench name, first, second, third, fourth
    call set_up
    rdtsc
    movl %eax, started
    movl $FRAME | RWU | PTE_A, %edx
    movl $COUNT, %ecx
.Lloop_\@:
    \first
    \second
    \third
    \fourth
    decl %ecx
    jnz .Lloop_\@
    rdtsc
    subl started, %eax
    say "\name"
    call report
.endm

guest_main:
    movl %cr4, %eax
    orl $CR4_PSE, %eax
    movl %eax, %cr4
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    movl %eax, %ebx
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    movl %eax, other_directory
    movl %ebx, page_directory
    call paging_on
    movl $WINDOW, %eax
    movl $FRAME | RWU, %edx
    call map_page
    call pte_of
    movl %eax, pte
    movl $0x80, %eax
    movl $on_syscall, %edx
    call gate_set
    movl $0xee, %edx
    call gate_type
    movl $VEC_UD, %eax
    movl $on_ud, %edx
    call gate_set
    movl $VEC_PF, %eax
    movl $on_page_fault, %edx
    call gate_set

    bench "empty loop"
    bench "CLI", cli
    bench "STI and CLI", sti, cli
    bench "CLTS", clts
    bench "read CR0", "movl %cr0, %eax"
    bench "read CR3", "movl %cr3, %eax"
    bench "write CR3, same value", "movl %esi, %cr3"
    bench "write CR3, another and back", "movl %ebp, %cr3", "movl %esi, %cr3"
    bench "INVLPG", "invlpg (%ebx)"
    bench "OUT 0x80", "outb %al, $0x80"
    bench "INT 0x80 and IRET within ring 0", "int $0x80"
    bench "UD2 and IRET", ud2
    bench "LIDT", "lidt idt_pointer"
    bench "PTE write, unchanged value", "movl %edx, (%edi)"
    bench "PTE write, other frame", "movl %edx, (%edi)", "xorl $0x1000, %edx"
    bench "PTE write, INVLPG, touch", "movl %edx, (%edi)", "xorl $0x1000, %edx", "invlpg (%ebx)", "movl (%ebx), %eax"
    bench "PTE cleared and set", "movl $0, (%edi)", "movl %edx, (%edi)"
    bench "BTR and BTS of the present bit", "btrl $0, (%edi)", "btsl $0, (%edi)"
    bench "page fault, mapped by the handler, unmapped", "movl (%ebx), %eax", "movl $0, (%edi)", "invlpg (%ebx)"
    movl $1f, %eax
    call enter_ring3
    say "INT 0x80 from ring 3 and IRET"
    movl trap_ebx, %eax
    call report
    say "# status 0\n"
    xorl %eax, %eax
    jmp exit
1:  rdtsc
    movl %eax, %ebx
    movl $COUNT, %ecx
2:  int $0x80
    decl %ecx
    jnz 2b
    rdtsc
    subl %ebx, %eax
    movl %eax, %ebx
    int $VEC_LEAVE

set_up:
    movl $WINDOW, %ebx
    movl pte, %edi
    movl page_directory, %esi
    movl other_directory, %ebp
    movl $FRAME | RWU, %edx
    movl %edx, (%edi)
    invlpg (%ebx)
    movl (%ebx), %eax
    ret

on_syscall:
    iretl
on_ud:
    addl $2, (%esp)
    iretl
on_page_fault:
    addl $4, %esp
    movl %edx, (%edi)
    iretl

# EAX: ticks of the whole loop. Ends the line with ticks for each round, with two decimals.
report:
    pushl %edx
    pushl %ecx
    say ": "
    xorl %edx, %edx
    movl $COUNT / 100, %ecx
    divl %ecx
    xorl %edx, %edx
    movl $100, %ecx
    divl %ecx
    call print_decimal
    say "."
    movl %edx, %eax
    cmpl $10, %eax
    jae 1f
    say "0"
1:  call print_decimal
    say "\n"
    popl %ecx
    popl %edx
    ret

.bss
.balign 4
pte: .space 4
other_directory: .space 4
started: .space 4
