# Random bytes as instructions, half of the rounds in ring 0, half in ring 3. `seed=` chooses the bytes, `rounds=` how
# many rounds there are. Every trap, the timer's too, ends a round. With an odd seed paging is off; with an even one it
# is on, and all 4 GiB are mapped to 16 MiB of memory, so that a wild stack pointer does not end everything at once.
#
# A round may all the same destroy the guest or hang it. What counts is that the hypervisor stays alive. CLI, POPF and
# IRET are left out of the bytes, since a loop with interrupts off would only wait for the tool's timeout.

.set CODE, 0x00a00000                   # 64 KiB of random bytes
.set CODE_SIZE, 0x10000
.set SCRATCH, 0x00b00000
.set STACK, 0x00c00000

guest_main:
    plan 1
    movl $key_seed, %eax
    call argument
    testl %eax, %eax
    jz 1f
    call number
    movl %eax, seed
1:  movl $key_rounds, %eax
    call argument
    testl %eax, %eax
    jz 1f
    call number
    movl %eax, rounds
1:  say "# seed "
    movl seed, %eax
    call print_decimal
    say ", rounds "
    movl rounds, %eax
    call print_decimal
    say "\n"

    movl $random_trap, %edx
    xorl %eax, %eax
1:  call gate_set
    incl %eax
    cmpl $256, %eax
    jne 1b
    movl seed, %eax
    andl $1, %eax
    jnz 2f
    call map_everything
2:  imull $747796405, seed, %eax
    movl %eax, state
    call fill
    jmp next_round

# Large pages: every 16 MiB of linear addresses show the first 16 MiB of memory.
map_everything:
    call alloc_frame
    movl %eax, saved_cr3
    movl %eax, %edi
    xorl %ecx, %ecx
1:  movl %ecx, %eax
    andl $3, %eax
    shll $22, %eax
    orl $PTE_P | PTE_W | PTE_U | PDE_PS, %eax
    stosl
    incl %ecx
    cmpl $1024, %ecx
    jne 1b
    movl $CR4_PSE, saved_cr4
    movl $CR0_PG | CR0_PE, saved_cr0
    ret

# EAX: a random number.
random32:
    imull $1664525, state, %eax
    addl $1013904223, %eax
    movl %eax, state
    roll $13, %eax
    ret

# Fills the code area: one byte in eight is the start of something privileged or segment-related.
fill:
    movl $CODE, %edi
1:  call random32
    testl $0x700, %eax
    jnz 2f
    shrl $16, %eax
    andl $31, %eax
    movw interesting(, %eax, 2), %ax
    stosw
    jmp 3f
2:  cmpb $0xfa, %al                     # CLI
    je 1b
    cmpb $0x9d, %al                     # POPF
    je 1b
    cmpb $0xcf, %al                     # IRET
    je 1b
    stosb
3:  cmpl $CODE + CODE_SIZE, %edi
    jb 1b
    ret

# Every trap comes here. Nothing is as it was: tables, segments and stack are loaded anew, without using any first.
random_trap:
    lgdt %cs:gdt_pointer
    lidt %cs:idt_pointer
    movl $SEL_KDATA, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    movw %ax, %ss
    movl $stack_top, %esp
    cld
next_round:
    movl saved_cr4, %eax
    movl %eax, %cr4
    movl saved_cr3, %eax
    movl %eax, %cr3
    movl saved_cr0, %eax
    orl $CR0_PE, %eax
    movl %eax, %cr0
    xorl %eax, %eax
    movl %eax, %dr7
    lldt %ax
    movb $0x89, gdt + SEL_TSS + 5
    movl $SEL_TSS, %eax
    ltr %ax
    pushl $2                            # no NT, no AC, no DF
    popfl
    movl $trap_stack_top, tss + 4
    movl $SEL_KDATA, tss + 8
    decl rounds
    js all_done
    call pic_init
    movb $0x20, %al
    outb %al, $PIC1
    outb %al, $PIC2
    movl $2386, %eax                    # 500 Hz
    call pit_start
    movb $0xfe, %al
    outb %al, $PIC1 + 1

    # Random registers; some point to memory worth pointing to.
    call random32
    movl %eax, %ebp
    call random32
    movl %eax, %edx
    call random32
    andl $0xffff, %eax
    leal SCRATCH(%eax), %esi
    call random32
    movl %eax, %edi
    call random32
    andl $0xffc, %eax
    leal SCRATCH(%eax), %ebx
    call random32
    movl %eax, %ecx
    testl $1, rounds
    jnz 1f
    movl $SEL_UDATA, %eax
    movw %ax, %ds
    movw %ax, %es
    movl $SEL_KDATA, %eax
    pushl $SEL_UDATA
    pushl $STACK
    pushl $EFLAGS_IF | 2
    pushl $SEL_UCODE
    jmp 2f
1:  movl $STACK, %esp
    pushl $EFLAGS_IF | 2
    pushl $SEL_KCODE
2:  imull $1664525, %ss:state, %eax
    addl $1013904223, %eax
    movl %eax, %ss:state
    shrl $16, %eax
    addl $CODE, %eax
    pushl %eax
    iretl

all_done:
    movb $0xff, %al
    outb %al, $PIC1 + 1
    call serial_init
    movl $1, %eax
    call tap_open
    say "all rounds are over\n"
    call tap_finish
    jmp exit

.section .rodata
key_seed: .asciz "seed="
key_rounds: .asciz "rounds="
.balign 2
interesting:                            # two bytes each, the first one first
    .word 0x200f, 0x220f, 0x210f, 0x230f    # MOV from and to CRn, DRn
    .word 0x000f, 0x010f, 0x080f, 0x060f    # SLDT.. LLDT, SGDT.. LMSW, INVD, CLTS
    .word 0x300f, 0x320f, 0x090f, 0x310f    # WRMSR, RDMSR, WBINVD, RDTSC
    .word 0x020f, 0x030f, 0xb20f, 0xa20f    # LAR, LSL, LSS, CPUID
    .word 0xd88e, 0xc08e, 0xd08e, 0x0f1f    # MOV DS, ES, SS; POP DS, POP...
    .word 0x00ea, 0x009a, 0x18ff, 0x28ff    # far JMP and CALL
    .word 0x80cd, 0xf4fb, 0xcbcb, 0x80e6    # INT 0x80; STI, HLT; RETF; OUT
    .word 0xc70f, 0xb10f, 0xab0f, 0x6cf3    # CMPXCHG8B, CMPXCHG, BTS, REP INSB
.data
.balign 4
seed: .long 1
rounds: .long 300
saved_cr0: .long CR0_PE
saved_cr3: .long 0
saved_cr4: .long 0
.bss
.balign 4
state: .space 4
