# Processes: fork by write protection, exec's teardown, and the whole life of a child.

.set FORKED_PAGES, 64                   # pages of a process in `forkwait`
.set WRITTEN_PAGES, 16                  # of them the child, and afterwards the parent, writes

.text
# The parent's window whole and writable, the child's empty.
full_family:
    movl $parent_pt, %edi
    movl $POOL | PTE_FULL, %eax
    movl $1024, %ecx
    restore_table
    movl $0, child_pd + (FAMILY >> 20)
    load_cr3 kernel_pd
    movl $FAMILY, %edi
    movl $1024, %ecx
    write_pages
    ret

# ECX: pages. The child gets the parent's entries, and neither may write any more.
copy_entries:
    xorl %esi, %esi
1:  movl parent_pt(, %esi, 4), %eax
    andl $~PTE_W, %eax
    movl %eax, parent_pt(, %esi, 4)
    movl %eax, child_pt(, %esi, 4)
    incl %esi
    cmpl %ecx, %esi
    jb 1b
    movl $child_pt + PTE_FULL, child_pd + (FAMILY >> 20)
    load_cr3 kernel_pd
    ret
operation "fork_copy", 1024, copy_entries, full_family

# A process with 1,024 pages, all used.
full_child:
    movl $child_pt, %edi
    movl $POOL | PTE_FULL, %eax
    movl $1024, %ecx
    restore_table
    movl $child_pt + PTE_FULL, child_pd + (FAMILY >> 20)
    load_cr3 child_pd
    movl $FAMILY, %edi
    movl $1024, %ecx
    write_pages
    ret
# Its entries go, then its table, then the TLB.
drop_child:
    xorl %esi, %esi
1:  xorl %eax, %eax
    xchgl %eax, child_pt(, %esi, 4)
    incl %esi
    cmpl %ecx, %esi
    jb 1b
    movl $0, child_pd + (FAMILY >> 20)
    load_cr3 kernel_pd
    ret
operation "exec_teardown", 1024, drop_child, full_child

# A child is forked, writes some of its pages in ring 3, makes a system call and ends; the parent writes the same pages.
forkwait_body:
    movl %ecx, %ebp
1:  movl $FORKED_PAGES, %ecx
    call copy_entries
    movl $child_pt, current_pt
    load_cr3 child_pd
    pushl %ebp
    movl $life_of_child, %eax
    call enter_user
    popl %ebp
    movl $FORKED_PAGES, %ecx
    call drop_child
    movl $parent_pt, current_pt
    movl $FAMILY, %edi
    movl $WRITTEN_PAGES, %ecx
    write_pages
    decl %ebp
    jnz 1b
    ret
operation "forkwait", 32, forkwait_body, full_family

life_of_child:
    movl $FAMILY, %edi
    movl $WRITTEN_PAGES, %ecx
    write_pages
    int $0x80
    int $0x81

# EAX: where a write was refused. The child's page is copied to a frame of its own, the parent's made writable again: it is
# the only user left. CF: it is no page of a family. Changes EAX and EDX.
copy_on_write:
    movl %eax, %edx
    subl $FAMILY, %edx
    shrl $12, %edx
    cmpl $1024, %edx
    cmc
    jc 2f
    andl $0xfffff000, %eax
    pushl %ecx
    movl current_pt, %ecx
    leal (%ecx, %edx, 4), %ecx
    cmpl $parent_pt, current_pt
    je 1f
    pushl %esi
    pushl %edi
    movl %edx, %edi                     # frames that are mapped one to one: 8 MiB and up
    shll $12, %edi
    addl $0x00800000, %edi
    leal PTE_FULL & ~PTE_W(%edi), %edx
    movl %edx, (%ecx)
    movl %eax, %esi
    pushl %ecx
    movl $1024, %ecx
    rep
    movsl
    popl %ecx
    popl %edi
    popl %esi
1:  orl $PTE_W, (%ecx)
    invlpg (%eax)
    popl %ecx
    clc
2:  ret

.pushsection .rodata.operations, "a"
operations_end:
.popsection

.bss
.balign 4
current_pt: .space 4
