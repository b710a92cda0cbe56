# How a small Unix begins, in one go: 4 MiB pages at 0 and in the upper half, the MP table, the local APIC's timer, checks of the interrupt
# flag at each turn, and two processes in address spaces of their own that the timer takes turns with.

.set LAPIC, 0xfee00000
.set UPPER, 0x80000000
.set VEC_CLOCK, 0x41
.set VEC_CALL, 0x42
.set VEC_NOTHING, 0x4f
.set PRIVATE, 0x00400000                # each process has a page of its own here
.set CALLS, 20
.set SWITCHES, 4
.set FRAME_WORDS, 17

# lapic register, value
.macro lapic register:req, value:req
    movl $\value, LAPIC + \register
    movl LAPIC + 0x20, %eax             # the write is done when the next read is
.endm

guest_main:
    plan 9
    call directories
    call upper_half
    call mp_table
    call locks
    call clock
    call processes
    ret

# Three directories: the kernel's and one for each process.
directories:
    call directory
    movl %eax, roots
    movl $1, %ecx
1:  call directory
    movl %eax, roots(, %ecx, 4)
    movl %eax, %ebx
    call alloc_frame
    movl %eax, %edx
    orl $PTE_P | PTE_W | PTE_U, %eax
    movl %eax, 4(%ebx)
    call alloc_frame
    movl %eax, pages(, %ecx, 4)
    orl $PTE_P | PTE_W | PTE_U, %eax
    movl %eax, (%edx)
    incl %ecx
    cmpl $3, %ecx
    jb 1b
    ret

# EAX: a new directory with the first 8 MiB at 0 and in the upper half, and the APICs.
directory:
    call alloc_frame
    movl $PTE_P | PTE_W | PTE_U | PDE_PS, (%eax)
    movl $0x400000 | PTE_P | PTE_W | PDE_PS, 4(%eax)
    movl $PTE_P | PTE_W | PDE_PS, 4 * (UPPER >> 22)(%eax)
    movl $0x400000 | PTE_P | PTE_W | PDE_PS, 4 * (UPPER >> 22) + 4(%eax)
    movl $0xfec00000 | PTE_P | PTE_W | PDE_PS | 0x18, 4 * (0xfec00000 >> 22)(%eax)
    ret

upper_half:
    movl %cr4, %eax
    orl $CR4_PSE, %eax
    movl %eax, %cr4
    movl roots, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    orl $CR0_PG | CR0_WP, %eax
    movl %eax, %cr0
    movl $1f, %eax
    orl $UPPER, %eax
    jmp *%eax
1:  call 2f                             # relative: still there
2:  popl %ebx
    shrl $31, %ebx
    movl $3f, %eax
    jmp *%eax
3:  check_eq "the kernel runs in its upper half", %ebx, $1
    ret

# Looks for the MP pointer where kernels do: the first KiB of the extended BIOS data area, the last of low memory, the ROM.
mp_table:
    movl $UPPER, %ebx
    movzwl 0x40e(%ebx), %esi
    shll $4, %esi
    movl $1024, %ecx
    call mp_search
    jz 1f
    movzwl 0x413(%ebx), %esi
    shll $10, %esi
    subl $1024, %esi
    movl $1024, %ecx
    call mp_search
    jz 1f
    movl $0xf0000, %esi
    movl $0x10000, %ecx
    call mp_search
    jz 1f
    movl $mp_none, %esi
1:  movl $UPPER, %ebx
    movl 4(%ebx, %esi), %esi            # the table
    movzwl 4(%ebx, %esi), %ecx
    call sum
    check_eq "the MP table is found through it, with good sums", %eax, $0
    movzwl 4(%ebx, %esi), %edi
    addl %esi, %edi                     # its end
    addl $44, %esi
    movl $-1, %edx
2:  cmpl %edi, %esi
    jae 4f
    cmpb $0, (%ebx, %esi)
    jne 3f
    movzbl 1(%ebx, %esi), %edx          # a CPU
    addl $12, %esi
3:  addl $8, %esi
    jmp 2b
4:  movl LAPIC + 0x20, %eax
    shrl $24, %eax
    check_eq "... and names this CPU", %edx, %eax
    ret

# ESI: physical address, ECX: bytes. ZF: found, and ESI is the pointer.
mp_search:
    cmpl $0x5f504d5f, UPPER(%esi)
    jne 1f
    pushl %ecx
    movl $16, %ecx
    call sum
    popl %ecx
    testl %eax, %eax
    jz 2f
1:  addl $16, %esi
    subl $16, %ecx
    ja mp_search
    orl $1, %ecx                        # not found
2:  ret

# EAX: the sum of ECX bytes at physical address ESI.
sum:
    xorl %eax, %eax
1:  addb UPPER - 1(%esi, %ecx), %al
    loop 1b
    ret

# Locks that switch interrupts off count how deep they are, and look at the flag each time.
.macro push_off
    pushfl
    popl %eax
    cli
    andl $EFLAGS_IF, %eax
    cmpl $0, depth
    jne .Lheld_\@
    movl %eax, was_on
.Lheld_\@:
    incl depth
.endm
.macro pop_off
    pushfl
    popl %eax
    andl $EFLAGS_IF, %eax
    addl %eax, wrong                    # it must be off here
    decl depth
    jnz .Lheld_\@
    testl $EFLAGS_IF, was_on
    jz .Lheld_\@
    sti
.Lheld_\@:
.endm

locks:
    movl $500, %ecx
1:  sti
    push_off
    push_off
    pop_off
    pushfl
    popl %eax
    andl $EFLAGS_IF, %eax
    addl %eax, wrong
    pop_off
    pushfl
    popl %eax
    cli
    andl $EFLAGS_IF, %eax
    xorl $EFLAGS_IF, %eax
    addl %eax, wrong                    # on again
    push_off
    pop_off
    pushfl
    popl %eax
    andl $EFLAGS_IF, %eax
    addl %eax, wrong                    # and off where it was
    decl %ecx
    jnz 1b
    check_eq "interrupts are off while a lock is held, and as before after the last", wrong, $0
    ret

clock:
    hook VEC_CLOCK, on_clock
    hook VEC_NOTHING, on_nothing
    lapic 0x0f0, 0x100 | VEC_NOTHING
    lapic 0x3e0, 0x0b
    lapic 0x320, 0x20000 | VEC_CLOCK    # periodic
    lapic 0x380, 1000000
    lapic 0x350, 0x10000
    lapic 0x360, 0x10000
    lapic 0x340, 0x10000
    lapic 0x370, VEC_NOTHING
    lapic 0x280, 0
    lapic 0x280, 0
    lapic 0x0b0, 0
    lapic 0x310, 0
    lapic 0x300, 0x88500                # INIT level de-assert to all
1:  testl $0x1000, LAPIC + 0x300
    jnz 1b
    lapic 0x080, 0
    movl $0, clocks
2:  sti
    hlt
    cli
    cmpl $5, clocks
    jb 2b
    check_eq "the APIC's timer wakes HLT", nothings, $0
    ret

processes:
    hook VEC_CALL, on_call
    movl $VEC_CALL, %eax
    movl $0xee, %edx
    call gate_type
    movl $saved + 4 * FRAME_WORDS, %edi # the second begins as if it had been interrupted at its start
    movl $SEL_UDATA, (%edi)
    movl $SEL_UDATA, FRAME_DS(%edi)
    movl $process, FRAME_EIP(%edi)
    movl $SEL_UCODE, FRAME_CS(%edi)
    movl $0x202, FRAME_EFLAGS(%edi)
    movl $user_stack_top - 1024, FRAME_ESP(%edi)
    movl $SEL_UDATA, FRAME_SS(%edi)
    movl $0x202, ring3_eflags
    movl roots + 4, %eax
    movl %eax, %cr3
    movl $process, %eax
    call enter_ring3_flags
    cli
    movl roots, %eax
    movl %eax, %cr3
    lapic 0x320, 0x10000
    movl $UPPER, %ebx
    movl pages + 4, %eax
    movl (%ebx, %eax), %esi
    movl pages + 8, %eax
    movl (%ebx, %eax), %edi
    check_eq "the first process counted in its own page", %esi, calls
    check_eq "... and the second", %edi, calls + 4
    xorl %eax, %eax
    cmpl $SWITCHES, switches
    setae %al
    check_eq "the timer took turns with them", %eax, $1
    check_eq "no handler saw interrupts on", wrong, $0
    ret

.section .text.ring3
process:
    movl $3000, %ecx
1:  loop 1b
    int $VEC_CALL
    jmp process
leaves:
    int $VEC_LEAVE

.text
# The process counts in its page, in the kernel, so that nothing comes between the two counts.
on_call:
    call flag_is_off
    incl PRIVATE
    movl current, %eax
    incl calls(, %eax, 4)
    cmpl $CALLS, calls
    jb 1f
    cmpl $CALLS, calls + 4
    jb 1f
    cmpl $SWITCHES, switches
    jb 1f
    movl $leaves, FRAME_EIP(%ebp)
1:  ret

on_clock:
    call flag_is_off
    incl clocks
    testb $3, FRAME_CS(%ebp)
    jz 1f
    movl current, %ebx
    call frame_of
    movl %eax, %edi
    movl %ebp, %esi
    movl $FRAME_WORDS, %ecx
    rep
    movsl
    xorl $1, %ebx
    movl %ebx, current
    movl roots + 4(, %ebx, 4), %eax
    movl %eax, %cr3
    call frame_of
    movl %eax, %esi
    movl %ebp, %edi
    movl $FRAME_WORDS, %ecx
    rep
    movsl
    incl switches
1:  movl $0, LAPIC + 0x0b0
    ret

# EAX: where the frame of process EBX is kept.
frame_of:
    imull $4 * FRAME_WORDS, %ebx, %eax
    addl $saved, %eax
    ret

flag_is_off:
    pushfl
    popl %eax
    andl $EFLAGS_IF, %eax
    addl %eax, wrong
    ret

on_nothing:
    incl nothings
    ret

.data
mp_none: .long 0, mp_none, 0, 0

.bss
.balign 4
roots: .space 12
pages: .space 12
saved: .space 2 * 4 * FRAME_WORDS
calls: .space 8
current: .space 4
switches: .space 4
clocks: .space 4
nothings: .space 4
wrong: .space 4
depth: .space 4
was_on: .space 4
