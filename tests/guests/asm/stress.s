# Random changes to page tables against a model. 64 pages in two tables, 16 frames; a step changes an entry, a directory
# entry or CR3, or reads or writes a page from ring 0 or ring 3, and compares what happens with the model.

.set WINDOW, 0x403e0000                 # 32 pages at the end of one table, 32 at the start of the next
.set PAGES, 64
.set FRAMES, 0x01000000
.set RWU, PTE_P | PTE_W | PTE_U
.set STEPS, 4000                        # for each result
.set ROUNDS, 10

guest_main:
    plan 10
    movl $PTE_W | PTE_U, %edx
    call paging_identity
    call paging_on
    # The entries of all pages lie one behind the other if the two tables do.
    movl $WINDOW, %eax
    call pte_of
    movl %eax, entries
    movl $WINDOW + 32 * 0x1000, %eax
    call pte_of
    # Frame n holds n * 0x01010101.
    xorl %esi, %esi
1:  movl %esi, %edx
    shll $12, %edx
    addl $FRAMES + RWU, %edx
    movl $WINDOW, %eax
    call map_page
    imull $0x01010101, %esi, %eax
    movl %eax, WINDOW
    movl %eax, contents(, %esi, 4)
    incl %esi
    cmpl $16, %esi
    jne 1b
    movl entries, %edi
    movl $FRAMES, %eax
    movl $PAGES, %ecx
    rep
    stosl
    movl %cr3, %eax
    movl %eax, %cr3

    movl $ROUNDS, %ebp
2:  movl $STEPS, %edi
3:  call step
    decl %edi
    jnz 3b
    movl wrong, %eax
    cmpl $1, %eax
    sbbl %eax, %eax
    negl %eax
    call tap_open
    say "4000 steps, then the state "
    movl seed, %eax
    call print_hex
    say "\n"
    decl %ebp
    jnz 2b
    ret

# EAX: a new pseudo-random number below EAX.
random:
    pushl %edx
    pushl %eax
    movl seed, %eax
    imull $1664525, %eax, %eax
    addl $1013904223, %eax
    movl %eax, seed
    shrl $8, %eax
    xorl %edx, %edx
    divl (%esp)
    movl %edx, %eax
    addl $4, %esp
    popl %edx
    ret

# ESI: a page, EBX: its entry's address.
choose_page:
    movl $PAGES, %eax
    call random
    movl %eax, %esi
    movl entries, %ebx
    leal (%ebx, %eax, 4), %ebx
    ret

step:
    call choose_page
    movl $16, %eax
    call random
    jmp *actions(, %eax, 4)

# A new entry: any frame, any rights.
set_entry:
    movl $16, %eax
    call random
    shll $12, %eax
    leal FRAMES(%eax), %edx
    movl $8, %eax
    call random
    orl %eax, %edx
    movl %edx, (%ebx)
    jmp flush_page
# Rights change, the frame stays.
flip_rights:
    movl $3, %eax
    call random
    btcl %eax, (%ebx)
flush_page:
    movl %esi, %eax
    shll $12, %eax
    invlpg WINDOW(%eax)
    ret
# Exchange two entries.
exchange:
    movl (%ebx), %edx
    movl %ebx, %ecx
    pushl %esi
    call choose_page
    xchgl %edx, (%ebx)
    movl %edx, (%ecx)
    call flush_page
    popl %esi
    jmp flush_page
# Clear a run of eight entries, then reload CR3.
clear_run:
    pushl %edi
    movl $PAGES - 8, %eax
    call random
    movl entries, %edi
    leal (%edi, %eax, 4), %edi
    movl $FRAMES, %eax                  # absent, whatever else it says
    movl $8, %ecx
    rep
    stosl
    popl %edi
reload:
    movl %cr3, %eax
    movl %eax, %cr3
    ret
# Rights of a directory entry change.
flip_directory:
    movl $2, %eax
    call random
    movl page_directory, %ebx
    leal (WINDOW >> 22) * 4(%ebx, %eax, 4), %ebx
    movl $3, %eax
    call random
    btcl %eax, (%ebx)
    jmp reload

# Accesses. The model decides on the entries as they are now.
kernel_read:
    call model
    try 1f
    movl (%eax), %edx
    movl %edx, result
1:  movl $0, %ecx
    jmp judge_read
user_read:
    call model
    movl %eax, address
    run_ring3 2f
    movl $PF_U, %ecx
judge_read:
    call judge
    cmpl $1, allowed
    jne 3f
    movl frame, %eax
    movl contents(, %eax, 4), %eax
    cmpl %eax, result
    jne bad
3:  ret
2:  movl address, %eax
    movl (%eax), %eax
    movl %eax, result
    int $VEC_LEAVE

kernel_write:
    call model
    movl seed, %edx
    try 1f
    movl %edx, (%eax)
1:  movl $PF_W, %ecx
    jmp judge_write
user_write:
    call model
    movl %eax, address
    run_ring3 2f
    movl $PF_W | PF_U, %ecx
judge_write:
    call judge
    cmpl $1, allowed
    jne 3f
    movl frame, %eax
    movl seed, %edx
    movl %edx, contents(, %eax, 4)
    testl $PTE_D, (%ebx)                # and the dirty bit must be there
    jz bad
3:  ret
2:  movl address, %eax
    movl seed, %edx
    movl %edx, (%eax)
    int $VEC_LEAVE

# EAX: the page's address; `rights`, `frame`: what the tables say of the page. Present in both levels, or absent.
model:
    movl %esi, %eax
    shll $12, %eax
    addl $WINDOW, %eax
    movl %eax, %ecx
    shrl $22, %ecx
    movl page_directory, %edx
    movl (%edx, %ecx, 4), %edx
    movl (%ebx), %ecx
    andl %ecx, %edx
    andl $7, %edx
    movl %edx, rights
    shrl $12, %ecx
    andl $15, %ecx
    movl %ecx, frame
    movl %eax, address
    ret

# ECX: the access. Compares the trap since `try` with the model; `allowed`: 1 if the model allows it.
judge:
    movl $0, allowed
    movl rights, %edx
    testl $PTE_P, %edx
    jz 2f                               # absent: error code as the access
    orl $PF_P, %ecx
    testl $PF_U, %ecx
    jz 1f
    testl $PTE_U, %edx
    jz 2f
1:  testl $PF_W, %ecx
    jz 3f
    testl $PTE_W, %edx
    jz 2f
3:  movl $1, allowed
    cmpl $VEC_PF, trap_vector
    je bad
    testl $PTE_A, (%ebx)
    jz bad
    ret
2:  cmpl $VEC_PF, trap_vector
    jne bad
    cmpl %ecx, trap_error
    jne bad
    movl trap_cr2, %edx
    cmpl %edx, address
    jne bad
    ret
bad:
    incl wrong
    cmpl $1, wrong
    jne 1f
    say "# first difference: address "
    movl address, %eax
    call print_hex
    say " entry "
    movl (%ebx), %eax
    call print_hex
    say " rights "
    movl rights, %eax
    call print_hex
    say " access "
    movl %ecx, %eax
    call print_hex
    say " trap "
    movl trap_vector, %eax
    call print_hex
    say " error "
    movl trap_error, %eax
    call print_hex
    say "\n"
1:  ret

.section .rodata
.balign 4
actions:
    .long set_entry, set_entry, set_entry, flip_rights, flip_rights, exchange, clear_run, flip_directory
    .long kernel_read, kernel_read, kernel_write, kernel_write, user_read, user_read, user_write, user_write
.data
.balign 4
seed: .long 20260101
.bss
.balign 4
entries: .space 4
contents: .space 64
result: .space 4
address: .space 4
rights: .space 4
frame: .space 4
allowed: .space 4
wrong: .space 4
