# Instructions, exceptions, rings and interrupts.

simple "empty"
simple "rdtsc", rdtsc
simple "call_ret", "call nothing"
simple "inb", "movw $IO_PORT, %dx", "inb %dx, %al"
simple "outb", "movw $IO_PORT, %dx", "outb %al, %dx"
simple "out_imm", "outb %al, $0x80"
simple "cli", cli
simple "sti_cli", sti, cli
simple "pushf_popf", pushfl, popfl
simple "clts", clts
simple "cr0_read", "movl %cr0, %eax"
simple "cr0_write", "movl %cr0, %eax", "xorl $CR0_TS, %eax", "movl %eax, %cr0"
simple "cr3_read", "movl %cr3, %eax"
simple "lidt", "lidt idt_pointer"
simple "int80_kernel", "int $0x80"
simple "ud2_kernel", ud2

.text
cpuid_body:
    movl %ecx, %edi
1:  xorl %eax, %eax
    cpuid
    decl %edi
    jnz 1b
    ret
operation "cpuid", 1000, cpuid_body

div0_body:
    movl %ecx, %ebx
1:  xorl %ecx, %ecx
    divl %ecx
    decl %ebx
    jnz 1b
    ret
operation "div0_kernel", 1000, div0_body

# user name, code: the code, in ring 3, counts EBX down and ends with INT 0x81.
.macro user name:req, code:req, count=1000, prepare=nothing, needs=always
    .text
.Luser_\@:
    movl %ecx, %ebx
    movl $\code, %eax
    jmp enter_user
    operation \name, \count, .Luser_\@, \prepare, \needs
.endm

user "div0_user", div0_in_user
user "int80", int80_in_user
user "sysenter", sysenter_in_user, needs=has_sysenter, prepare=set_sysenter
user "syscall", syscall_in_user, needs=has_syscall, prepare=set_syscall
user "pgfault_user", fault_in_user, count=DEMAND_PAGES, prepare=unmap_demand

.text
div0_in_user:
1:  xorl %ecx, %ecx
    divl %ecx
    decl %ebx
    jnz 1b
    int $0x81
int80_in_user:
1:  int $0x80
    decl %ebx
    jnz 1b
    int $0x81
sysenter_in_user:
1:  movl $2f, %edx
    movl %esp, %ecx
    sysenter
2:  decl %ebx
    jnz 1b
    int $0x81
syscall_in_user:
1:  syscall
    decl %ebx
    jnz 1b
    int $0x81
fault_in_user:
    movl $DEMAND, %esi
1:  movl %ebx, (%esi)
    addl $4096, %esi
    decl %ebx
    jnz 1b
leave_user:
    int $0x81

user_roundtrip_body:
    movl %ecx, %edi
1:  movl $leave_user, %eax
    call enter_user
    decl %edi
    jnz 1b
    ret
operation "user_roundtrip", 1000, user_roundtrip_body

# EAX: where to go in ring 3. Comes back when INT 0x81 is executed there, with all registers as they are then.
enter_user:
    movl %esp, kernel_esp
    movl $SEL_UDATA, %edx
    movw %dx, %ds
    movw %dx, %es
    pushl $SEL_UDATA
    pushl $user_stack_top
    pushl $2
    pushl $SEL_UCODE
    pushl %eax
    iretl
on_leave:
    movl $SEL_KDATA, %eax
    movw %ax, %ds
    movw %ax, %es
    movl kernel_esp, %esp
    ret

set_sysenter:
    xorl %edx, %edx
    movl $0x174, %ecx
    movl $SEL_KCODE, %eax
    wrmsr
    incl %ecx
    movl $trap_stack_top, %eax
    wrmsr
    incl %ecx
    movl $on_sysenter, %eax
    wrmsr
    ret
on_sysenter:
    sysexit

# Legacy SYSCALL: to CS 0x08 and SS 0x10; SYSRET to CS 0x1b and SS 0x23, which sets IF; the PICs are masked.
set_syscall:
    movl $0xc0000080, %ecx              # EFER.SCE
    rdmsr
    orl $1, %eax
    wrmsr
    movl $0xc0000081, %ecx
    movl $on_syscall_instruction, %eax
    movl $0x001b0008, %edx
    wrmsr
    ret
on_syscall_instruction:
    .byte 0x0f, 0x07                    # sysretl

# Pages that are not there.
touch_demand:
    movl $DEMAND, %edi
    write_pages
    ret
operation "pgfault_kernel", DEMAND_PAGES, touch_demand, unmap_demand

retouch_demand:
    load_cr3 kernel_pd
    movl $DEMAND, %edi
    read_pages
    ret
map_demand:
    movl $demand_pt, %edi
    movl $POOL | PTE_FULL, %eax
    movl $DEMAND_PAGES, %ecx
    restore_table
    load_cr3 kernel_pd
    movl $DEMAND, %edi
    movl $DEMAND_PAGES, %ecx
    write_pages
    ret
operation "cr3_then_retouch", DEMAND_PAGES, retouch_demand, map_demand

skip_body:
    movl $2f, skip_to
1:  movl ABSENT, %eax
2:  decl %ecx
    jnz 1b
    ret
operation "pf_skip", 1000, skip_body

map_unmap_body:
    movl $DEMAND, %ebx
    movl $demand_pt, %edi
1:  movl (%ebx), %eax
    movl $0, (%edi)
    invlpg (%ebx)
    decl %ecx
    jnz 1b
    ret
operation "pf_map_unmap", 1000, map_unmap_body, unmap_demand

# An interrupt that waits is let in: from STI to the first instruction of its handler.
irq_latency_body:
    call unmask_timer
1:  call raise_timer
    rdtsc
    movl %eax, raised
    sti
    nop
    nop
    cli
    movl latency, %eax
    addl %eax, own_ticks
    decl %ecx
    jnz 1b
    jmp mask_timer
operation "irq_latency", 200, irq_latency_body

# The same by way of HLT, until the instruction after it; the handler sends an EOI.
hlt_wake_body:
    call unmask_timer
1:  call raise_timer
    rdtsc
    movl %eax, raised
    sti
    hlt
    cli
    rdtsc
    subl raised, %eax
    addl %eax, own_ticks
    decl %ecx
    jnz 1b
    jmp mask_timer
operation "hlt_wake", 200, hlt_wake_body

unmask_timer:
    movb $0xfe, %al
    outb %al, $PIC1 + 1
    ret
mask_timer:
    movb $0xff, %al
    outb %al, $PIC1 + 1
    ret

# One shot of the PIT, and waiting until the PIC has it.
raise_timer:
    movb $0x30, %al
    outb %al, $PIT + 3
    movb $8, %al
    outb %al, $PIT
    xorl %eax, %eax
    outb %al, $PIT
    movb $0x0a, %al                     # reads of the PIC give requests
    outb %al, $PIC1
1:  inb $PIC1, %al
    testb $1, %al
    jz 1b
    ret
on_timer:
    pushl %eax
    pushl %edx
    rdtsc
    subl raised, %eax
    movl %eax, latency
    movb $0x20, %al
    outb %al, $PIC1
    popl %edx
    popl %eax
    iretl

# Handlers that do next to nothing, so that what is measured is the way to them.
.macro gate vector:req, handler:req, kind=0x8e
    movl $\vector, %eax
    movl $\handler, %edx
    call gate_set
    movl $\kind, %edx
    call gate_type
.endm
set_gates:
    gate VEC_DE, on_two_bytes
    gate VEC_UD, on_two_bytes
    gate VEC_PF, on_page_fault
    gate VEC_IRQ0, on_timer
    gate 0x80, on_system_call, 0xee
    gate 0x81, on_leave, 0xee
    ret
on_two_bytes:
    addl $2, (%esp)
on_system_call:
    iretl

# A page of the demand window is mapped, a read of the absent page is skipped, a write to a family page is family.s'.
on_page_fault:
    pushl %eax
    pushl %edx
    movl %cr2, %eax
    cmpl $ABSENT, %eax
    je 2f
    movl %eax, %edx
    subl $DEMAND, %edx
    shrl $12, %edx
    cmpl $DEMAND_PAGES, %edx
    jae 3f
    andl $0xfffff000, %eax
    addl $POOL - DEMAND + PTE_FULL, %eax
    movl %eax, demand_pt(, %edx, 4)
1:  popl %edx
    popl %eax
    addl $4, %esp
    iretl
2:  movl skip_to, %eax
    movl %eax, 12(%esp)
    jmp 1b
3:  cmpl $FAMILY, %eax
    jb 4f
    call copy_on_write
    jnc 1b
4:  popl %edx
    popl %eax
    jmp trap_stubs + 16 * VEC_PF

.bss
.balign 4
kernel_esp: .space 4
skip_to: .space 4
raised: .space 4
latency: .space 4
