# Hostile cases: page tables and descriptor tables.

.text
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
tss_nowhere:                            # ring 0 has its stack nowhere, so its trap handler finds no hook but what stands before them
    movl trap_hooks - 4, %edi
    movb $0xf4, (%edi)                  # HLT: through zeroes it would add to nowhere for minutes
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
