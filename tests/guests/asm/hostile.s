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

# ---- page tables

cr3_nowhere:
    call identity
    movl $0xfffff000, %eax
    movl %eax, %cr3
    jmp .
cr3_each_bit:                           # every CR3 with one bit set, paging off and on
    movl $1, %esi
1:  movl %esi, %cr3
    addl %esi, %esi
    jnz 1b
    ret
pde_nowhere:
    call identity
    movl page_directory, %ebx
    movl $0xfffff000 | RWU, 0x400(%ebx)
    movl 0x40000000, %eax
    movl %eax, 0x40000000
    ret
pte_nowhere:                            # leaves beyond memory: there is nothing, or a device
    call identity
    movl $0x04000000, %esi              # from 64 MiB on, in steps of 1 MiB and a page
1:  leal RWU(%esi), %edx
    movl $0x40000000, %eax
    call map_page
    movl 0x40000000, %eax
    movl %eax, 0x40000000
    addl $0x00101000, %esi
    jnc 1b
    ret
pde_self:                               # every entry of the directory is the directory
    call identity
    call alloc_frame
    movl %eax, %edi
    orl $RWU, %eax
    movl $1024, %ecx
    rep
    stosl
    andl $~0xfff, %eax
    movl page_directory, %ebx           # ... but the kernel's own
    movl (%ebx), %edx
    movl %edx, (%eax)
    movl %eax, %cr3
    movl $0x00400000, %edi
1:  movl (%edi), %eax
    movl %eax, (%edi)
    addl $0x00ff1004, %edi
    jnc 1b
    ret
stack_in_page_table:                    # trap frames become page-table entries
    call identity
    movl $0x40000000, %eax
    call pte_of
    leal 0x800(%eax), %eax
    movl %eax, tss + 4
    run_ring3 1f
    movl $0x40000000, %edi
    movl $512, %ecx
2:  try 3f
    movl (%edi), %eax
    movl %eax, (%edi)
3:  addl $4096, %edi
    decl ring3_eflags
    cmpl $-600, ring3_eflags
    jne 2b
    ret
1:  int $VEC_LEAVE
gdt_in_page_table:                      # page-table entries become descriptors
    call identity
    movl $0x40000000, %eax
    call pte_of
    movl %eax, table_pointer + 2
    movl %eax, %edi
    movl $gdt, %esi
    movl $32, %ecx
    rep
    movsl
    lgdt table_pointer
    movl $SEL_KDATA, %eax
    movw %ax, %ds
    movl $SEL_UDATA, %eax
    movw %ax, %fs
    movl 0x40002000, %eax
    ret
code_in_page_table:                     # a page table that is executed, and changes itself
    call identity
    movl $0x40000000, %eax
    call pte_of
    movl $100, %esi
1:  movl $0x90c300ff, (%eax)            # incl (%eax); ret
    call *%eax
    decl %esi
    jnz 1b
    ret

# ---- descriptor tables

gdt_nowhere:
    lgdt nowhere
    movl $SEL_KDATA, %eax
    movw %ax, %ds
    ret
idt_nowhere:
    lidt nowhere
    int $0x40
    ret
idt_garbage:                            # an IDT in the code
    lidt garbage
    ud2
    ret
tss_nowhere:
    movl $0xffffff00, tss + 4
    run_ring3 1f
    ret
1:  int $VEC_LEAVE
tss_garbage:
    movl $0x00008900, gdt + SEL_FREE + 4
    movl $0xffff0067, gdt + SEL_FREE
    movb $0xff, gdt + SEL_FREE + 7
    movb $0xff, gdt + SEL_FREE + 4
    movl $SEL_FREE, %eax
    ltr %ax
    run_ring3 1b
    ret
ldt_garbage:
    movl $0x0000ffff, gdt + SEL_FREE
    movl $0xff0f82ff, gdt + SEL_FREE + 4
    movl $SEL_FREE, %eax
    lldt %ax
    movl $4, %esi
1:  try 2f
    movw %si, %fs
2:  addl $8, %esi
    cmpl $0x10000, %esi
    jb 1b
    ret
long_code:                              # descriptors of 64-bit code, entered in every way
    movl $0x0000ffff, gdt + SEL_FREE
    movl $0x00af9a00, gdt + SEL_FREE + 4
    movl $0x0000ffff, gdt + SEL_FREE + 8
    movl $0x00affa00, gdt + SEL_FREE + 12
    try 1f
    ljmp $SEL_FREE, $1f
1:  ljmp $SEL_KCODE, $2f
2:  try 3f
    pushl $SEL_FREE
    pushl $3f
    lretl
3:  ljmp $SEL_KCODE, $4f
4:  run_ring3 5f
    ret
5:  ljmp $SEL_FREE + 8 + 3, $6f
6:  int $VEC_LEAVE

# ---- selectors

jump_selectors:
    xorl %edi, %edi
1:  movw %di, far_pointer + 4
    movl $2f, far_pointer
    try 2f
    ljmp *far_pointer
2:  ljmp $SEL_KCODE, $3f
3:  incl %edi
    cmpl $0x10000, %edi
    jne 1b
    ret
jump_selectors_ring3:
    xorl %edi, %edi
1:  movw %di, far_pointer + 4
    movl $3f, far_pointer
    run_ring3 2f
    incl %edi
    cmpl $0x10000, %edi
    jne 1b
    ret
2:  ljmp *far_pointer
3:  int $VEC_LEAVE
return_selectors:
    xorl %edi, %edi
1:  try 2f
    pushl $2
    pushl %edi
    pushl $2f
    iretl
2:  ljmp $SEL_KCODE, $3f
3:  try 4f
    pushl $SEL_UDATA
    pushl $user_stack_top
    pushl $2
    pushl %edi
    pushl $5f
    iretl
4:  ljmp $SEL_KCODE, $6f
5:  int $VEC_LEAVE
6:  incl %edi
    cmpl $0x10000, %edi
    jne 1b
    ret
load_selectors:
    xorl %edi, %edi
1:  .irp register, ds, es, fs, gs, ss
    try .Lnext_\register
    movw %di, %\register
.Lnext_\register:
    movl $SEL_KDATA, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    .endr
    incl %edi
    cmpl $0x10000, %edi
    jne 1b
    movw %ax, %fs
    movw %ax, %gs
    ret
load_selectors_ring3:
    xorl %edi, %edi
1:  run_ring3 2f
    run_ring3 3f
    incl %edi
    cmpl $0x10000, %edi
    jne 1b
    movl $SEL_KDATA, %eax
    movw %ax, %fs
    movw %ax, %gs
    ret
2:  movw %di, %fs
    movw %di, %gs
    int $VEC_LEAVE
3:  movw %di, %ss
    int $VEC_LEAVE

# ---- IRET

iret_vm:                                # virtual-8086 mode: frame ES DS FS GS behind SS ESP
    .rept 4
    pushl $0
    .endr
    pushl $0x1000
    pushl $0x0800
    pushl $0x00020202
    pushl $0x0200
    pushl $0
    iretl
iret_vm_ring3:
    run_ring3 1f
    ret
1:  .rept 4
    pushl $0
    .endr
    pushl $0x1000
    pushl $0x0800
    pushl $0x00023202
    pushl $0x0200
    pushl $0
    iretl
iret_flags:                             # every flag by itself, within ring 0 and to ring 3
    movl $1, %esi
1:  testl $0x00020000, %esi             # but VM
    jnz 4f
    try 2f
    pushl %esi
    pushl $SEL_KCODE
    pushl $2f
    iretl
2:  cli
    pushl $2
    popfl
    movl %esi, ring3_eflags
    movl $3f, %eax
    call enter_ring3_flags
    pushl $2
    popfl
4:  addl %esi, %esi
    jnz 1b
    ret
3:  int $VEC_LEAVE

# ---- faults without end

triple_fault:
    lidt nothing
    ud2
fault_loop:                             # the handler of #PF faults on its first instruction
    call identity
    movl $VEC_PF, %eax
    movl $0x70000000, %edx
    call gate_set
    movl 0x60000000, %eax
    ret
fault_loop_forever:                     # the same without a growing stack: the handler resets it
    call identity
    movl $VEC_PF, %eax
    movl $1f, %edx
    call gate_set
    jmp 2f
1:  movl $stack_top, %esp
2:  movl 0x60000000, %eax
    ret
gate_absent:                            # #PF with an absent gate, and #DF too
    call identity
    movb $0x0e, idt + VEC_PF * 8 + 5
    movb $0x0e, idt + VEC_DF * 8 + 5
    movl 0x60000000, %eax
    ret
stack_gone:                             # ring 0's own stack is not mapped
    call identity
    movl $0x70000000, %esp
    ud2
spin:                                   # interrupts off, for ever
    cli
    jmp .
halt:                                   # the same asleep
    cli
    hlt
    jmp halt

# ---- memory and devices

write_memory:                           # all of physical memory but the guest itself, 64 MiB and beyond
    movl $0x00200000, %edi
1:  movl %edi, (%edi)
    addl $0x1000, %edi
    jnc 1b
    ret
write_low_memory:
    xorl %edi, %edi
    movl $0x000a0000, %ecx
    xorl %eax, %eax
    rep
    stosb
    movl $0x00060000, %ecx
    rep
    stosb
    ret
ports:                                  # reads all ports and writes to them, but not those that end the guest
    xorl %esi, %esi
1:  movl %esi, %edx
    try 2f
    inb %dx, %al
    inw %dx, %ax
    inl %dx, %eax
    movl $forbidden_ports, %edi
4:  movzwl (%edi), %ecx
    addl $2, %edi
    jecxz 3f
    subl %edx, %ecx
    addl $3, %ecx
    cmpl $6, %ecx                       # a port nearer than a doubleword
    ja 4b
    jmp 2f
3:  xorl %eax, %eax
    outb %al, %dx
    outw %ax, %dx
    outl %eax, %dx
    notl %eax
    outb %al, %dx
    outw %ax, %dx
    outl %eax, %dx
2:  incl %esi
    cmpl $0x10000, %esi
    jne 1b
    call serial_init
    jmp pic_init
string_ports:                           # INS and OUTS with wild pointers
    call identity
    movw $0x3ff, %dx
    try 1f
    movl $-1, %ecx
    movl $0x007ff000, %edi
    rep
    insb
1:  try 2f
    movw $0x3ff, %dx
    movl $0xfffffffc, %esi
    movl $-1, %ecx
    rep
    outsl
2:  ret

# ---- registers

msrs:                                   # reads, writes back, writes ones
    xorl %esi, %esi
1:  call one_msr
    incl %esi
    cmpl $0x2000, %esi
    jne 2f
    movl $0x40000000, %esi
2:  cmpl $0x40000100, %esi
    jne 3f
    movl $0xc0000000, %esi
3:  cmpl $0xc0000200, %esi
    jne 4f
    movl $0xc0010000, %esi
4:  cmpl $0xc0010200, %esi
    jne 1b
    ret
one_msr:
    try 1f
    movl %esi, %ecx
    rdmsr
    movl %esi, %ecx
    wrmsr
1:  try 2f
    movl %esi, %ecx
    movl $-1, %eax
    movl $-1, %edx
    wrmsr
2:  try 3f
    movl %esi, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    wrmsr
3:  ret
long_mode:                              # the way a kernel enters it
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    movl $0x100, %eax
    xorl %edx, %edx
    wrmsr
    call alloc_frame
    movl %eax, %cr3
    movl %eax, %ebx
    call alloc_frame
    movl %eax, %edi
    orl $RWU, %eax
    movl %eax, (%ebx)
    movl $PTE_P | PTE_W | PDE_PS, (%edi)
    movl %cr0, %eax
    orl $CR0_PG, %eax
    movl %eax, %cr0
    ljmp $SEL_KCODE, $1f
1:  ret
control_bits:                           # CR0 and CR4 with every single bit turned, and all of them
    movl $1, %esi
1:  try 2f
    movl %cr0, %eax
    movl %eax, %edi
    xorl %esi, %eax
    andl $~CR0_PG, %eax
    orl $CR0_PE, %eax
    movl %eax, %cr0
    movl %edi, %cr0
2:  try 3f
    movl %cr4, %eax
    movl %eax, %edi
    xorl %esi, %eax
    movl %eax, %cr4
    movl %edi, %cr4
3:  addl %esi, %esi
    jnz 1b
    try 4f
    movl $-1, %eax
    movl %eax, %cr4
4:  try 5f
    movl $0x7fffffff, %eax
    movl %eax, %cr0
5:  ret
no_protection:                          # CR0.PE=0: real mode
    movl %cr0, %eax
    andl $~CR0_PE, %eax
    movl %eax, %cr0
    ljmp $SEL_KCODE, $1f
1:  ret
debug_registers:                        # breakpoints on everything near
    hook VEC_DB, 1f
    movl $2f, %eax
    movl %eax, %dr0
    movl $trap_entry, %eax
    movl %eax, %dr1
    movl $stack_top - 64, %eax
    movl %eax, %dr2
    movl $0xffff8000, %eax
    movl %eax, %dr3
    movl $0xfff027ff, %eax
    movl %eax, %dr7
2:  nop
    pushl %eax
    popl %eax
    movl $0x400, %eax
    movl %eax, %dr7
    hook VEC_DB, 0
    ret
1:  movl $0x400, %eax
    movl %eax, %dr7
    ret
single_step:                            # TF over everything privileged
    hook VEC_DB, 9f
    hook VEC_LEAVE + 1, 9f
    pushl $EFLAGS_TF | 2
    pushl $SEL_KCODE
    pushl $1f
    iretl
1:  sti
    nop
    cli
    movl %cr0, %eax
    movl %eax, %cr0
    movl %cr3, %eax
    movl %eax, %cr3
    movl $SEL_KDATA, %eax
    movw %ax, %ss
    nop
    lidt idt_pointer
    int $VEC_LEAVE + 1
    outb %al, $0x80
    invlpg 0
    pushl $2
    pushl $SEL_KCODE
    pushl $2f
    iretl
2:  nop
    hook VEC_DB, 0
9:  ret
nested_task:                            # IRET with NT: a task return through a back link that is not there
    pushl $0x4002
    popfl
    iretl
task_gate:
    movl $SEL_TSS << 16, idt + 0x40 * 8
    movl $0x00008500, idt + 0x40 * 8 + 4
    int $0x40
    ljmp $SEL_TSS, $0
    ret

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
    a_case single-step, single_step
    a_case nested-task, nested_task
    a_case task-gate, task_gate
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
