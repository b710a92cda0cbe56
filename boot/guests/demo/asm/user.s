# The process: a first-fit allocator over an arena that grows by `brk`, and a program that makes it grow.

.set HEADER, 8                          # in front of each block: its size with the header, the next free block

.section .user, "ax"
function user_main
    movl $hello, %eax
    call puts

    movl $1500, %eax                    # the arena is empty: malloc must call brk
    call checked_malloc
    movl %eax, %esi
    movl $1500, %eax                    # fits into the same page
    call checked_malloc
    movl %eax, %edi
    movl $6000, %eax                    # does not fit: brk again, two pages
    call checked_malloc
    movl %eax, %ebp

    # Touch all of the last block: write, read back, add up.
    movl %ebp, %edi
    movl $1500, %ecx
1:  movl %ecx, (%edi)
    addl $4, %edi
    loop 1b
    movl $1500, %ecx
    xorl %eax, %eax
    movl %ebp, %edi
2:  addl (%edi), %eax
    addl $4, %edi
    loop 2b
    cmpl $1500 * 1501 / 2, %eax
    movl $wrong, %eax
    movl $1, %ebx
    jne 3f
    movl $right, %eax
    call puts

    # A freed block is found again, and the kernel is not asked.
    movl %esi, %eax
    call free
    movl $1000, %eax
    call checked_malloc
    movl $wrong, %ecx
    cmpl %esi, %eax
    movl $reused, %eax
    movl $0, %ebx
    je 3f
    movl $wrong, %eax
    movl $1, %ebx
3:  call puts
    movl $1, %eax                       # exit
    int $0x80

# EAX: size. EAX: the block, never 0.
function checked_malloc
    call malloc
    testl %eax, %eax
    jz 1f
    ret
1:  movl $no_memory, %eax
    call puts
    movl $2, %ebx
    movl $1, %eax
    int $0x80

# EAX: size in bytes. EAX: a block, or 0.
function malloc
    pushl %ebx
    pushl %ecx
    pushl %edx
    addl $HEADER + 7, %eax
    andl $~7, %eax
    # First fit in the free list.
    movl $free_list - 4, %ebx           # a block whose `next` is the list's head
1:  movl 4(%ebx), %edx
    testl %edx, %edx
    jz 2f
    cmpl %eax, (%edx)
    jae 4f
    movl %edx, %ebx
    jmp 1b
4:  movl 4(%edx), %ecx                  # unlink it
    movl %ecx, 4(%ebx)
    jmp 5f
    # Or from the top of the arena, which may have to grow.
2:  movl arena_top, %edx
    leal (%edx, %eax), %ecx
    cmpl arena_end, %ecx
    jbe 3f
    call grow_arena
    testl %eax, %eax
    jz 6f
    movl arena_top, %edx
    leal (%edx, %eax), %ecx
3:  movl %ecx, arena_top
    movl %eax, (%edx)
5:  leal HEADER(%edx), %eax
6:  popl %edx
    popl %ecx
    popl %ebx
    ret

# EAX: a block of malloc.
function free
    pushl %edx
    leal -HEADER(%eax), %eax
    movl free_list, %edx
    movl %edx, 4(%eax)
    movl %eax, free_list
    popl %edx
    ret

# EAX: a size that does not fit. Asks the kernel for whole pages. EAX: unchanged, or 0 when the kernel has none.
function grow_arena
    pushl %eax
    movl $arena_full, %eax
    call puts
    popl %eax
    pushl %eax
    movl arena_top, %ebx
    leal 4095(%ebx, %eax), %ebx
    andl $0xfffff000, %ebx
    call brk
    cmpl %ebx, %eax
    movl %eax, arena_end
    popl %eax
    jae 1f
    xorl %eax, %eax
1:  ret

# EBX: the wanted end of the heap. EAX: the end.
function brk
    movl $45, %eax
    int $0x80
    ret

# Prints the text at EAX with the system call.
function puts
    pushl %ebx
    pushl %ecx
    pushl %edx
    movl %eax, %ecx
    movl %eax, %edx
1:  cmpb $0, (%edx)
    je 2f
    incl %edx
    jmp 1b
2:  subl %ecx, %edx
    movl $1, %ebx
    movl $4, %eax                       # write
    int $0x80
    popl %edx
    popl %ecx
    popl %ebx
    ret

.section .user_data, "aw"
hello: .asciz "user: hello from ring 3\n"
arena_full: .asciz "user: malloc: the arena is full, calling brk\n"
right: .asciz "user: 6000 bytes written and read back\n"
reused: .asciz "user: malloc: a freed block is used again\n"
wrong: .asciz "user: something is wrong\n"
no_memory: .asciz "user: malloc: no memory\n"
.balign 4
free_list: .long 0
arena_top: .long user_end
arena_end: .long user_end
