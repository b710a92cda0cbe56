# Accessed and dirty bits of two-level page tables with 4 KiB pages. Whether an access that faults sets the accessed
# bit of the directory entry is left open by the architecture and not looked at.

.set WINDOW, 0x40000000
.set FRAME, 0x01000000
.set AD, PTE_A | PTE_D

# after "text", bits: the page-table entry's A and D are these; then both are cleared and the TLB told.
.macro after text, bits
    movl pte, %eax
    movl (%eax), %eax
    andl $AD, %eax
    check_eq "\text", %eax, $\bits
    call clear
.endm

guest_main:
    plan 34
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    movl $WINDOW, %eax
    movl $FRAME | PTE_P | PTE_W | PTE_U, %edx
    call map_page
    call pte_of
    movl %eax, pte
    movl page_directory, %eax
    addl $(WINDOW >> 22) * 4, %eax
    movl %eax, pde
    movl $WINDOW, %edi

    movl (%eax), %edx
    andl $PTE_A, %edx
    check_eq "a fresh directory entry has A=0", %edx, $0
    after "a fresh table entry has A=0 D=0", 0
    movl (%edi), %eax
    after "a read sets A", PTE_A
    movl pde, %eax
    movl (%eax), %edx
    andl $PTE_A, %edx
    check_eq "... and A of the directory entry", %edx, $PTE_A
    movl $1, (%edi)
    after "a write sets A and D", AD
    movl (%edi), %eax
    movl $1, (%edi)
    after "a write after a read sets D", AD
    movl $1, (%edi)
    movl (%edi), %eax
    after "a read after a write leaves D", AD
    incl (%edi)
    after "INC sets D", AD
    cmpl $0, (%edi)
    after "CMP sets A alone", PTE_A
    xchgl %eax, (%edi)
    after "XCHG sets D", AD
    lock
    addl $0, (%edi)
    after "LOCK ADD 0 sets D", AD
    movb $1, 0xfff(%edi)
    after "a write to the page's last byte sets D", AD
    movb $0xc3, 8(%edi)
    call clear
    leal 8(%edi), %eax
    call *%eax
    after "a fetch sets A alone", PTE_A
    run_ring3 2f
    after "a read in ring 3 sets A", PTE_A
    run_ring3 3f
    after "a write in ring 3 sets A and D", AD
    run_ring3 4f
    after "a fetch in ring 3 sets A alone", PTE_A
    movl $source, %esi
    movl $64, %ecx
    pushl %edi
    rep
    movsl
    popl %edi
    after "REP MOVS into the page sets D", AD
    movl %edi, %esi
    pushl %edi
    movl $copy, %edi
    movl $64, %ecx
    rep
    movsl
    popl %edi
    after "REP MOVS out of the page sets A alone", PTE_A
    movl %esp, %ebx
    leal 0x800(%edi), %esp
    pushl $0
    movl %ebx, %esp
    after "PUSH sets D", AD
    invlpg (%edi)
    after "INVLPG sets nothing", 0
    lidt (%edi)
    lidt idt_pointer
    after "LIDT from the page sets A alone", PTE_A

    # The bits are set by the processor alone when the entry says so.
    movl pte, %ebx
    orl $AD, (%ebx)
    invlpg (%edi)
    movl (%edi), %eax
    after "bits that software has set stay", AD
    movl pte, %ebx
    orl $PTE_D, (%ebx)
    invlpg (%edi)
    movl (%edi), %eax
    after "D without A: a read adds A", AD

    # A refused write.
    movl pte, %ebx
    andl $~PTE_W, (%ebx)
    invlpg (%edi)
    movl (%edi), %eax
    try 1f
    movl $1, (%edi)
1:  movl pte, %ebx
    movl (%ebx), %esi
    andl $AD, %esi
    orl $PTE_W, (%ebx)
    check_eq "a refused write does not set D", %esi, $PTE_A
    call clear

    # A dirty page, made clean by the kernel as a swapper does it.
    xorl %esi, %esi
    movl $100, %ecx
1:  movl %ecx, (%edi)
    movl pte, %ebx
    movl (%ebx), %eax
    andl $PTE_D, %eax
    addl %eax, %esi
    andl $~PTE_D, (%ebx)
    invlpg (%edi)
    loop 1b
    check_eq "100 times: written, found dirty, cleaned", %esi, $100 * PTE_D
    # The same without INVLPG but with a load of CR3.
    xorl %esi, %esi
    movl $100, %ecx
1:  movl (%edi), %eax
    movl pte, %ebx
    movl (%ebx), %eax
    andl $PTE_A, %eax
    addl %eax, %esi
    andl $~PTE_A, (%ebx)
    movl %cr3, %eax
    movl %eax, %cr3
    loop 1b
    check_eq "100 times: read, found accessed, cleared with CR3", %esi, $100 * PTE_A

    # The directory entry's A, by both paths.
    movl pde, %ebx
    andl $~PTE_A, (%ebx)
    movl %cr3, %eax
    movl %eax, %cr3
    movl (%ebx), %eax
    andl $PTE_A, %eax
    check_eq "directory entry: A is cleared", %eax, $0
    movl $1, (%edi)
    movl (%ebx), %eax
    andl $PTE_A | PTE_D, %eax
    check_eq "directory entry: a write sets A, and not D", %eax, $PTE_A

    # Two mappings of one frame have their own bits.
    movl $WINDOW + 0x1000, %eax
    movl $FRAME | PTE_P | PTE_W, %edx
    call map_page
    call clear
    movl $1, WINDOW + 0x1000
    movl pte, %ebx
    movl (%ebx), %eax
    andl $AD, %eax
    check_eq "a write through one mapping", %eax, $0
    movl 4(%ebx), %eax
    andl $AD, %eax
    check_eq "... does not set the bits of the other", %eax, $AD

    # An access across two pages sets both.
    movl $WINDOW + 0x1000, %eax
    movl $FRAME + 0x1000 | PTE_P | PTE_W, %edx
    call map_page
    call clear
    movl $1, WINDOW + 0xffe
    movl (%ebx), %eax
    andl $AD, %eax
    check_eq "a write across two pages sets D of the first", %eax, $AD
    movl 4(%ebx), %eax
    andl $AD, %eax
    check_eq "... and of the second", %eax, $AD

    # The page table that maps itself.
    call clear
    movl pte, %ebx
    movl %ebx, %eax
    call pte_of
    movl %eax, %esi                     # the entry that maps the table that has `pte`
    andl $~AD, (%esi)
    invlpg (%ebx)
    movl (%ebx), %eax
    movl (%esi), %eax
    andl $AD, %eax
    check_eq "reading a page table sets A of the page that holds it", %eax, $PTE_A
    orl $0, (%ebx)
    movl (%esi), %eax
    andl $AD, %eax
    check_eq "writing it sets D", %eax, $AD
    ret

2:  movl (%edi), %eax
    int $VEC_LEAVE
3:  movl $0x0030cd, 16(%edi)            # INT 0x30
    int $VEC_LEAVE
4:  leal 16(%edi), %eax
    jmp *%eax

clear:
    pushl %ebx
    movl pte, %ebx
    andl $~AD, (%ebx)
    invlpg WINDOW
    popl %ebx
    ret

.bss
.balign 4
pte: .space 4
pde: .space 4
copy: .space 256
source: .space 256
