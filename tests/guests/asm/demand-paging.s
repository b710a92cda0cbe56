# Demand paging: a page-fault handler maps pages when they are touched.

.set LAZY, 0x40000000                   # linear addresses without pages at first
.set MARKED, LAZY + 0x00c00000

# What A and D are in the entry for an address.
.macro check_marks text:req, gva:req, want:req
    movl \gva, %eax
    call pte_of
    movl (%eax), %edx
    andl $PTE_A | PTE_D, %edx
    check_eq "\text", %edx, \want
.endm

guest_main:
    plan 20
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    hook VEC_PF, on_page_fault

    movl $LAZY, %eax
    movl (%eax), %ebx
    check_eq "a first read sees zeros", %ebx, $0
    check_eq "... after one fault", faults, $1
    check_eq "... with the error code of a kernel read", trap_error, $0
    movl $0x1234, LAZY + 8
    check_eq "a write to the same page does not fault", faults, $1
    movl $0x5678, LAZY + 0x1000
    check_eq "a write to the next page faults", faults, $2
    check_eq "... with the error code of a kernel write", trap_error, $PF_W
    check_eq "... at its address", trap_cr2, $LAZY + 0x1000
    movl $0x9abc, LAZY + 0x2ffe         # two pages at once
    check_eq "a write across two missing pages faults twice", faults, $4
    movl LAZY + 0x2ffe, %ebx
    check_eq "... and arrives", %ebx, $0x9abc

    # 1,000 pages in two tables, from ring 3.
    movl $0, faults
    run_ring3 2f
    expect_trap "ring 3 touches 1000 pages", VEC_LEAVE
    check_eq "... with 1000 faults", faults, $1000
    movl $LAZY + 0x00200000, %edi
    xorl %ecx, %ecx
    xorl %edx, %edx
1:  movl (%edi), %eax
    subl %edi, %eax
    orl %eax, %edx
    addl $4096, %edi
    incl %ecx
    cmpl $1000, %ecx
    jne 1b
    check_eq "... and each keeps its own value", %edx, $0

    # The handler marks the entry itself, as Linux does.
    movl $0, faults
    movl $PTE_A | PTE_D, marks
    run_ring3 4f
    expect_trap "ring 3 touches 100 pages whose entries are made with A and D", VEC_LEAVE
    check_eq "... with 100 faults", faults, $100
    movl MARKED + 0x5000, %eax
    check_eq "... and each keeps its own value", %eax, $MARKED + 0x5000
    # With A alone: D is the CPU's to set, at a write and not before.
    movl $PTE_A, marks
    movl MARKED + 0x100000, %eax
    check_eq "a read sees zeros where the entry is made with A", %eax, $0
    check_marks "... which is all that it has", $(MARKED + 0x100000), $PTE_A
    movl $1, MARKED + 0x100000
    check_marks "... until a write", $(MARKED + 0x100000), $PTE_A | PTE_D
    movl $1, MARKED + 0x101000
    check_marks "a write sets D where the entry is made with A", $(MARKED + 0x101000), $PTE_A | PTE_D
    check_eq "... all with two more faults", faults, $102
    hook VEC_PF, 0
    ret

2:  movl $LAZY + 0x00200000, %edi
    movl $1000, %ecx
3:  movl %edi, (%edi)
    addl $4096, %edi
    loop 3b
    int $VEC_LEAVE

4:  movl $MARKED, %edi
    movl $100, %ecx
    jmp 3b

# Maps a fresh frame. The new entry is present where none was, so no INVLPG is needed.
on_page_fault:
    incl faults
    call alloc_frame_spread
    movl %eax, %edx
    orl $PTE_P | PTE_W | PTE_U, %edx
    orl marks, %edx
    movl trap_cr2, %eax
    call pte_of
    movl %edx, (%eax)
    ret

# Data frames come from above the identity map, one in three, so that neighbours in memory are not neighbours here.
alloc_frame_spread:
    pushl %edx
    movl next_data_frame, %eax
    addl $0x3000, next_data_frame
    popl %edx
    ret

.data
.balign 4
next_data_frame: .long 0x01000000
.bss
.balign 4
faults: .space 4
marks: .space 4                         # what else the handler's entries have
