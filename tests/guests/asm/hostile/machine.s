# Hostile cases: memory, devices, and registers of the machine.

.text
write_memory:                           # every page of memory but the guest itself, up to 64 MiB; beyond, where nothing or a
    movl $0x00200000, %edi              # device is, one page in 16, the APICs' among them
1:  movl %edi, (%edi)
    addl $0x1000, %edi
    cmpl $0x04000000, %edi
    jb 1b
2:  movl %edi, (%edi)
    addl $0x10000, %edi
    jnc 2b
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
ports:                                  # reads ports and writes to them, but not those that end the guest: all where devices are
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
2:  cmpl $0x1010, %esi
    jb 5f
    cmpl $0x1ff0, %esi                  # QEMU's test device is around 0x2000
    jb 6f
    cmpl $0x2030, %esi
    jb 5f
6:  addl $12, %esi                      # elsewhere one in 13
5:  incl %esi
    cmpl $0x10000, %esi
    jb 1b
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
.pushsection .bss
storm_count: .space 4
.popsection
breakpoint_moved:                       # a breakpoint on user code that is moved: QEMU itself stops there
    movl $1f, %eax
    movl %eax, %dr0
    movl $0x402, %eax
    movl $SEL_FREE | 3, %ecx
    movl $2f - 0x100000, %edx
    jmp storm
breakpoint_storm:                       # steps and breakpoints at once
    movl $1f, %eax
    movl %eax, %dr0
    movl $user_stack_top - 4, %eax
    movl %eax, %dr3
    movl $0xff000482, %eax
    movl $SEL_UCODE, %ecx
    movl $2f, %edx
storm:
    movl $gdt + SEL_FREE, %ebx
    movl $0x0000ffff, (%ebx)            # code of ring 3 whose base is 1 MiB
    movl $0x00cffa10, 4(%ebx)
    hook VEC_DB, 9f
    movl %eax, %dr7
    pushl $SEL_UDATA
    pushl $user_stack_top
    pushl $EFLAGS_TF | 2
    pushl %ecx
    pushl %edx
    iretl
2:  nop
1:  pushl %eax
    popl %eax
    jmp 2b
9:  incl storm_count
    cmpl $200, storm_count
    jb 8f
    hook VEC_DB, 0                      # the guest ends by the next
8:  ret
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

# CR3 of a TSS is the guest's. A CPU that switches tasks without asking its hypervisor runs on it, so each switch is tried where the
# hypervisor may not expect the TSS that is left: its page mapped elsewhere, with INVLPG and without, and TR moved.
task_cr3:
    call identity
    call switch_task
    call alloc_frame
    movl %eax, %ebx
    call copy_tss
    movl $tss, %eax
    leal RWU(%ebx), %edx
    call map_page
    incl tss + 0x64                     # written natively, if that goes
    call switch_task
    movl $tss, %eax
    call pte_of
    movl $tss + RWU + PTE_A + PTE_D, (%eax)
    call switch_task                    # through what the TLB has, or not
    invlpg tss
    call switch_task
    call alloc_frame
    movl %eax, %ebx
    call copy_tss
    movl %ebx, %eax
    movl $SEL_FREE + 8, %edx
    call tss_descriptor
    ltr %dx
    call switch_task
    movl 0x38(%ebx), %eax
    ret

# The TSS to EBX.
copy_tss:
    movl $tss, %esi
    movl %ebx, %edi
    movl $26, %ecx
    rep
    movsl
    ret

# There and back. The other task lies on a page that nobody writes but this.
switch_task:
    movl $other_tss, %edi
    xorl %eax, %eax
    movl $26, %ecx
    rep
    stosl
    movl %cr3, %eax
    movl %eax, other_tss + 0x1c
    movl $1f, other_tss + 0x20
    movl $2, other_tss + 0x24
    movl $user_stack_top, other_tss + 0x38
    movl $SEL_KDATA, other_tss + 0x48
    movl $SEL_KCODE, other_tss + 0x4c
    movl $SEL_KDATA, other_tss + 0x50
    movl $SEL_KDATA, other_tss + 0x54
    movw $104, other_tss + 102
    movl $other_tss, %eax
    movl $SEL_FREE, %edx
    call tss_descriptor
    lcall $SEL_FREE, $0
    clts
    ret
1:  iretl

# The descriptor EDX becomes that of a TSS at EAX.
tss_descriptor:
    movl $0x0067, gdt(%edx)
    movl %eax, gdt + 2(%edx)
    rorl $24, %eax
    movb %al, gdt + 7(%edx)
    movw $0x0089, gdt + 5(%edx)
    ret
.pushsection .bss
.balign 4096
other_tss: .space 4096
.popsection
