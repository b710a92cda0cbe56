# Address space of the benchmark guest. Two-level tables, built once; what an operation changes it puts back in its `prepare`.
#
#   0 to 16 MiB             one to one, code, data and page tables; ring 3 may use it
#   DEMAND 0x40000000       4,096 pages, mapped by the page-fault handler
#   SET    0x50000000       16,384 pages over the whole pool
#   WORK   0x60000000       1,024 pages, all entries in one table, work_pt
#   ABSENT 0x70000000       never mapped
#   SPACE  0x80000000       64 pages, others in each of 64 address spaces
#   BIG    0x90000000       one 4 MiB page, mapped when it is measured
#   FAMILY 0xa0000000       1,024 pages of a parent process, and of its child

.set POOL, 0x01000000                   # frames to map: 16 MiB to 80 MiB
.set DEMAND, 0x40000000
.set DEMAND_PAGES, 4096
.set SET, 0x50000000
.set SET_PAGES, 16384
.set WORK, 0x60000000
.set WORK_PAGES, 1024
.set ABSENT, 0x70000000
.set SPACE, 0x80000000
.set SPACES, 64
.set SPACE_PAGES, 64
.set BIG, 0x90000000
.set FAMILY, 0xa0000000
.set PTE_FULL, PTE_P | PTE_W | PTE_U | PTE_A | PTE_D

# Loads CR3 with a directory; changes EAX.
.macro load_cr3 directory:req
    movl $\directory, %eax
    movl %eax, %cr3
.endm

# EDI: first entry, EAX: its value, ECX: entries, each a page further.
.macro fill_table
77: stosl
    addl $4096, %eax
    decl %ecx
    jnz 77b
.endm

# The same for a `prepare`: an entry that is right is only read. Where nothing is to be put back no page table is written, which
# under a hypervisor would take longer than what is measured.
.macro restore_table
77: cmpl %eax, (%edi)
    je 78f
    movl %eax, (%edi)
78: addl $4, %edi
    addl $4096, %eax
    decl %ecx
    jnz 77b
.endm

# Reads one word of each of ECX pages from EDI on.
.macro read_pages
77: movl (%edi), %eax
    addl $4096, %edi
    decl %ecx
    jnz 77b
.endm
.macro write_pages
77: movl %ecx, (%edi)
    addl $4096, %edi
    decl %ecx
    jnz 77b
.endm

.text
build_tables:
    movl $identity_pt, %edi
    movl $PTE_FULL, %eax
    movl $4096, %ecx
    fill_table
    movl $set_pt, %edi
    movl $POOL | PTE_FULL, %eax
    movl $SET_PAGES, %ecx
    fill_table
    movl $work_pt, %edi
    movl $POOL | PTE_FULL, %eax
    movl $WORK_PAGES, %ecx
    fill_table
    movl $kernel_pd, %edi
    call share_kernel
    movl $kernel_pd + (DEMAND >> 20), %edi
    movl $demand_pt + PTE_FULL, %eax
    movl $DEMAND_PAGES / 1024, %ecx
    fill_table
    movl $kernel_pd + (SET >> 20), %edi
    movl $set_pt + PTE_FULL, %eax
    movl $SET_PAGES / 1024, %ecx
    fill_table
    movl $work_pt + PTE_FULL, kernel_pd + (WORK >> 20)
    movl $parent_pt + PTE_FULL, kernel_pd + (FAMILY >> 20)
    movl $child_pd, %edi
    call share_kernel
    call build_spaces
    movl %cr4, %eax
    orl $CR4_PSE, %eax
    movl %eax, %cr4
    load_cr3 kernel_pd
    movl %cr0, %eax
    orl $CR0_PG | CR0_WP, %eax
    movl %eax, %cr0
    jmp 1f
1:  ret

# EDI: a directory. Maps 0 to 16 MiB in it.
share_kernel:
    movl $identity_pt + PTE_FULL, %eax
    movl $4, %ecx
    fill_table
    ret

build_spaces:
    movl $space_pt, %edi                # one word after the other: the tables are not full
    movl $POOL | PTE_FULL, %eax
    xorl %edx, %edx
1:  pushl %edi
    movl $SPACE_PAGES, %ecx
    fill_table
    popl %edi
    movl %edx, %ebx
    shll $12, %ebx
    leal space_pt + PTE_FULL(%ebx), %ecx
    movl %ecx, space_pd + (SPACE >> 20)(%ebx)
    pushl %eax
    pushl %edi
    leal space_pd(%ebx), %edi
    call share_kernel
    popl %edi
    popl %eax
    addl $4096, %edi
    incl %edx
    cmpl $SPACES, %edx
    jb 1b
    ret

# The work window as it was, and in the TLB.
full_work:
    movl $work_pt, %edi
    movl $POOL | PTE_FULL, %eax
    movl $WORK_PAGES, %ecx
    restore_table
    load_cr3 kernel_pd
    movl $WORK, %edi
    movl $WORK_PAGES, %ecx
    write_pages
    ret

# The work window with A, without D, in the TLB.
clean_work:
    movl $work_pt, %edi
    movl $POOL | PTE_FULL & ~PTE_D, %eax
    movl $WORK_PAGES, %ecx
    restore_table
    load_cr3 kernel_pd
    movl $WORK, %edi
    movl $WORK_PAGES, %ecx
    read_pages
    ret

# The work window never used.
fresh_work:
    movl $work_pt, %edi
    movl $POOL | PTE_FULL & ~(PTE_A | PTE_D), %eax
    movl $WORK_PAGES, %ecx
    restore_table
    load_cr3 kernel_pd
    ret

unmap_demand:
    movl $demand_pt, %edi
    movl $DEMAND_PAGES, %ecx
1:  cmpl $0, (%edi)
    je 2f
    movl $0, (%edi)
2:  addl $4, %edi
    decl %ecx
    jnz 1b
    load_cr3 kernel_pd
    ret

# Every page of every address space, once.
touch_spaces:
    xorl %edx, %edx
1:  movl %edx, %eax
    shll $12, %eax
    addl $space_pd, %eax
    movl %eax, %cr3
    movl $SPACE, %edi
    movl $SPACE_PAGES, %ecx
    read_pages
    incl %edx
    cmpl $SPACES, %edx
    jb 1b
    load_cr3 kernel_pd
    ret

.bss
.balign 4096
kernel_pd: .space 4096
child_pd: .space 4096
identity_pt: .space 4 * 4096
demand_pt: .space DEMAND_PAGES * 4
set_pt: .space SET_PAGES * 4
work_pt: .space 4096
parent_pt: .space 4096
child_pt: .space 4096
space_pd: .space SPACES * 4096
space_pt: .space SPACES * 4096
