# Frames and page tables. The kernel sees all its memory at KERNEL_BASE + physical address.

.text
# EAX: the physical address of a new frame full of zeros.
function alloc_frame
    pushl %ecx
    pushl %edi
    movl next_frame, %eax
    addl $4096, next_frame
    pushl %eax
    leal KERNEL_BASE(%eax), %edi
    movl $1024, %ecx
    xorl %eax, %eax
    rep
    stosl
    popl %eax
    popl %edi
    popl %ecx
    ret

# Maps the page at linear address EAX to the frame and flags in EDX. A missing page table is made first.
function map_page
    pushl %eax
    pushl %ebx
    pushl %ecx
    movl %eax, %ecx
    shrl $22, %eax
    movl $boot_directory, %ebx
    leal (%ebx, %eax, 4), %ebx
    testl $PTE_P, (%ebx)
    jnz 1f
    call alloc_frame
    orl $PTE_P | PTE_W | PTE_U, %eax
    movl %eax, (%ebx)                   # the new table's directory entry
1:  movl (%ebx), %ebx
    andl $0xfffff000, %ebx
    shrl $10, %ecx
    andl $0xffc, %ecx
    movl %edx, KERNEL_BASE(%ebx, %ecx)  # the page-table entry
    popl %ecx
    popl %ebx
    popl %eax
    ret

.data
.balign 4
next_frame: .long kernel_end
