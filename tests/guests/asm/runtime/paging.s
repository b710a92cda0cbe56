# Two-level page tables. Everything lives below 8 MiB, which `paging_identity` maps one to one.

.set FRAMES_START, 0x00400000           # frames handed out by alloc_frame: 4 MiB to 8 MiB
.set FRAMES_END,   0x00800000

.text
# EAX: physical address of a new frame full of zeros.
.globl alloc_frame
alloc_frame:
    pushl %ecx
    pushl %edi
    movl next_frame, %edi
    cmpl $FRAMES_END, %edi
    jae 1f
    addl $4096, next_frame
    pushl %edi
    movl $1024, %ecx
    xorl %eax, %eax
    rep
    stosl
    popl %eax
    popl %edi
    popl %ecx
    ret
1:  say "Bail out! out of frames\n"
    movl $3, %eax
    jmp exit

# EAX: a new page directory that maps 0 to 8 MiB one to one, with the flags in EDX on all its entries.
.globl paging_identity
paging_identity:
    pushl %ecx
    pushl %edi
    pushl %ebx
    call alloc_frame
    movl %eax, page_directory
    movl %eax, %ebx
    orl $PTE_P, %edx
    call alloc_frame
    movl %eax, %edi
    orl %edx, %eax
    movl %eax, (%ebx)
    call alloc_frame                    # the frame after the first table
    orl %edx, %eax
    movl %eax, 4(%ebx)
    movl %edx, %eax
    movl $2048, %ecx
1:  stosl
    addl $4096, %eax
    loop 1b
    movl %ebx, %eax
    popl %ebx
    popl %edi
    popl %ecx
    ret

# Loads page_directory and turns paging on, CR0.WP too.
.globl paging_on
paging_on:
    pushl %eax
    movl page_directory, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    orl $CR0_PG | CR0_WP, %eax
    movl %eax, %cr0
    jmp 1f
1:  popl %eax
    ret

.globl paging_off
paging_off:
    pushl %eax
    movl %cr0, %eax
    andl $~CR0_PG, %eax
    movl %eax, %cr0
    jmp 1f
1:  popl %eax
    ret

# EAX: linear address. Returns the address of its page-table entry in page_directory; a missing table is made, with
# all rights in the directory entry.
.globl pte_of
pte_of:
    pushl %ecx
    pushl %edx
    movl %eax, %ecx
    shrl $22, %eax
    movl page_directory, %edx
    leal (%edx, %eax, 4), %edx
    testl $PTE_P, (%edx)
    jnz 1f
    call alloc_frame
    orl $PTE_P | PTE_W | PTE_U, %eax
    movl %eax, (%edx)
1:  movl (%edx), %eax
    andl $0xfffff000, %eax
    shrl $10, %ecx
    andl $0xffc, %ecx
    addl %ecx, %eax
    popl %edx
    popl %ecx
    ret

# EAX: linear address, EDX: entry. Writes it and drops the page from the TLB.
.globl map_page
map_page:
    pushl %eax
    pushl %eax
    call pte_of
    movl %edx, (%eax)
    popl %eax
    invlpg (%eax)
    popl %eax
    ret

.data
.balign 4
next_frame: .long FRAMES_START
.globl page_directory
page_directory: .long 0
