# Page-table entries, INVLPG, CR3, working sets.

simple "invlpg", "invlpg (%ebx)"
simple "invlpg_touch", "invlpg (%ebx)", "movl (%ebx), %eax"
simple "cr3_same", "movl %esi, %cr3"
simple "pte_same", "movl %ebp, (%edi)"
simple "pte_clear_set", "movl $0, (%edi)", "movl %ebp, (%edi)"
simple "pte_btr_bts", "btrl $0, (%edi)", "btsl $0, (%edi)"

# ESI counts up. EDI: which of 64 entries is next, EAX: its new value, another frame of 128 each time.
.macro next_entry
    movl %esi, %eax
    shrl $6, %eax
    addl %esi, %eax
    andl $127, %eax
    shll $12, %eax
    addl $POOL | PTE_FULL, %eax
    movl %esi, %edi
    andl $63, %edi
.endm

# changes name, instructions: an entry is changed, then the instructions, with EDX the page.
.macro changes name:req, first, second
    .text
.Lbody_\@:
    xorl %esi, %esi
1:  next_entry
    movl %eax, work_pt(, %edi, 4)
    .ifnb \first
    movl %edi, %edx
    shll $12, %edx
    addl $WORK, %edx
    \first
    \second
    .endif
    incl %esi
    decl %ecx
    jnz 1b
    ret
    operation \name, 1024, .Lbody_\@, full_work
.endm

changes "ptemod"
changes "ptemod_touch", "movl (%edx), %eax"
changes "ptemod_invlpg", "invlpg (%edx)"
changes "ptemod_invlpg_touch", "invlpg (%edx)", "movl (%edx), %eax"

.text
ptemod1_body:
    xorl %esi, %esi
1:  movl %esi, %eax
    andl $127, %eax
    shll $12, %eax
    addl $POOL | PTE_FULL, %eax
    movl %eax, work_pt + 20
    incl %esi
    decl %ecx
    jnz 1b
    ret
operation "ptemod1", 1024, ptemod1_body, full_work

# burst size, entries, flushed: as many entries as `size` are changed, then flushed, then their pages read; again until it were
# `entries`, by which it is counted. The entries get other frames each time.
.macro burst size:req, entries:req, flushed
    .text
.Lbody_\@:
    movl %ecx, %ebp
    xorl %esi, %esi
1:  movl %esi, %eax                     # the frame of the first entry
    andl $127, %eax
    shll $12, %eax
    addl $POOL | PTE_FULL, %eax
    xorl %edi, %edi
2:  movl %eax, work_pt(, %edi, 4)
    addl $4096, %eax
    incl %edi
    cmpl $\size, %edi
    jb 2b
    .ifb \flushed
    load_cr3 kernel_pd
    .else
    movl $WORK, %edi
3:  invlpg (%edi)
    addl $4096, %edi
    cmpl $WORK + \size * 4096, %edi
    jb 3b
    .endif
    movl $WORK, %edi
    movl $\size, %ecx
    read_pages
    incl %esi
    subl $\size, %ebp
    ja 1b
    ret
    .ifb \flushed
    operation "burst\size", \entries, .Lbody_\@, full_work
    .else
    operation "burst\size\()_\flushed", \entries, .Lbody_\@, full_work
    .endif
.endm

burst 1, 1024
burst 64, 4096
burst 1024, 4096
burst 1, 1024, invlpg
burst 64, 4096, invlpg
burst 1024, 4096, invlpg

# What the CPU writes into entries itself.
.text
write_work:
    movl $WORK, %edi
    write_pages
    ret
read_work:
    movl $WORK, %edi
    read_pages
    ret
operation "dirty", WORK_PAGES, write_work, clean_work
operation "accessed_r", WORK_PAGES, read_work, fresh_work
operation "accessed_dirty_w", WORK_PAGES, write_work, fresh_work

# The work window mapped, touched and unmapped; counted by page.
.text
map_work:
    movl $work_pt, %edi
    movl $POOL | PTE_FULL, %eax
    movl $WORK_PAGES, %ecx
    fill_table
    ret
# Entries one by one, as kernels do it.
unmap_work:
    movl $work_pt, %edi
    movl $WORK_PAGES, %ecx
1:  movl $0, (%edi)
    addl $4, %edi
    decl %ecx
    jnz 1b
    ret
map_untouched_body:
    movl $4, %ebp
1:  call map_work
    call unmap_work
    load_cr3 kernel_pd
    decl %ebp
    jnz 1b
    ret
operation "map4m_notouch_cr3", 4 * WORK_PAGES, map_untouched_body, full_work
map_touch_body:
    movl $4, %ebp
1:  call map_work
    movl $WORK_PAGES, %ecx
    call write_work
    call unmap_work
    load_cr3 kernel_pd
    decl %ebp
    jnz 1b
    ret
operation "map4m_touch_cr3", 4 * WORK_PAGES, map_touch_body, full_work
map_flush_body:
    movl $4, %ebp
1:  call map_work
    movl $WORK_PAGES, %ecx
    call write_work
    movl $work_pt, %edi
    movl $WORK, %esi
    movl $WORK_PAGES, %ecx
2:  movl $0, (%edi)
    invlpg (%esi)
    addl $4, %edi
    addl $4096, %esi
    decl %ecx
    jnz 2b
    decl %ebp
    jnz 1b
    ret
operation "map4m_touch_invlpg", 4 * WORK_PAGES, map_flush_body, full_work

# One 4 MiB page instead: mapped, 64 of its 4 KiB touched, unmapped; counted by 4 MiB page.
big_body:
    movl %ecx, %ebp
1:  movl $POOL | PTE_FULL | PDE_PS, kernel_pd + (BIG >> 20)
    movl $BIG, %edi
    movl $64, %ecx
    write_pages
    movl $0, kernel_pd + (BIG >> 20)
    movl $BIG, %edi
    invlpg (%edi)
    decl %ebp
    jnz 1b
    ret
operation "pse4m_touch64", 100, big_body

# Address spaces. EBP: how many take turns, less one.
.macro spaces count:req
    .text
.Lswitch_\@:
    movl $\count - 1, %ebp
    jmp switch_spaces
.Ltouch_\@:
    movl $\count - 1, %ebp
    jmp switch_and_touch
    operation "cr3_\count", 1024, .Lswitch_\@, touch_spaces
    operation "cr3_\count\()_touch64", 256, .Ltouch_\@, touch_spaces
.endm
.text
switch_spaces:
    xorl %esi, %esi
1:  movl %esi, %eax
    andl %ebp, %eax
    shll $12, %eax
    addl $space_pd, %eax
    movl %eax, %cr3
    incl %esi
    decl %ecx
    jnz 1b
    load_cr3 kernel_pd
    ret
switch_and_touch:
    movl %ecx, %edx
    xorl %esi, %esi
1:  movl %esi, %eax
    andl %ebp, %eax
    shll $12, %eax
    addl $space_pd, %eax
    movl %eax, %cr3
    movl $SPACE, %edi
    movl $SPACE_PAGES, %ecx
    read_pages
    incl %esi
    decl %edx
    jnz 1b
    load_cr3 kernel_pd
    ret
touch_only:
    movl %ecx, %edx
    load_cr3 space_pd
1:  movl $SPACE, %edi
    movl $SPACE_PAGES, %ecx
    read_pages
    decl %edx
    jnz 1b
    load_cr3 kernel_pd
    ret
operation "touch64", 1000, touch_only, touch_spaces
spaces 1
spaces 2
spaces 16
spaces 64

# working_set pages: reads of that many pages in turn; counted by read.
.macro working_set pages:req
    .text
.Lwarm_\@:
    movl $\pages, %ecx
    movl $SET, %edi
    read_pages
    ret
.Lbody_\@:
    movl %ecx, %ebp
1:  movl $SET, %edi
    movl $\pages, %ecx
    read_pages
    subl $\pages, %ebp
    ja 1b
    ret
    operation "set_\pages", 32768, .Lbody_\@, .Lwarm_\@
.endm
working_set 16
working_set 64
working_set 256
working_set 1024
working_set 4096
working_set 16384

# mix updates: one CR3 load and 64 reads, each a TLB miss, with that many changes of entries, each with its INVLPG, before
# them; counted by CR3 load. The more changes, the worse for shadow paging; the more misses, the worse for nested paging.
.macro mix updates:req
    .text
.Lbody_\@:
    movl %ecx, %ebp
    xorl %esi, %esi
1:  .if \updates
    movl $\updates, %ecx
2:  next_entry
    movl %eax, work_pt(, %edi, 4)
    shll $12, %edi
    addl $WORK, %edi
    invlpg (%edi)
    incl %esi
    decl %ecx
    jnz 2b
    .endif
    load_cr3 kernel_pd
    movl $WORK, %edi
    movl $64, %ecx
    read_pages
    decl %ebp
    jnz 1b
    ret
    operation "mix_\updates", 64, .Lbody_\@, full_work
.endm
mix 0
mix 1
mix 4
mix 16
mix 64
