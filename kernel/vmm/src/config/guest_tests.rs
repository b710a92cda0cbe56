use alloc::string::ToString;
use alloc::vec;

use super::*;

fn one(line: &str) -> GuestConfig {
    let guests = parse_guests([line]).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert_eq!(guests.len(), 1);
    guests.into_iter().next().unwrap()
}

fn refusal(lines: &[&str]) -> String {
    match parse_guests(lines.iter().copied()) {
        Ok(guests) => panic!("accepted: {guests:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_empty_line_is_a_guest_with_defaults() {
    assert_eq!(one(""), GuestConfig::new("vm1"));
}

#[test]
fn every_word_is_understood() {
    let guest = one("/boot/x.elf name=demo mem=16M time=virtual format=flat addr=0x8000 -- a=1  --b c ");
    assert_eq!(guest.name, "demo");
    assert_eq!(guest.memory, 16 << 20);
    assert_eq!(guest.time, TimeMode::Virtual);
    assert_eq!(guest.format, ImageFormat::Flat { address: 0x8000 });
    assert_eq!(guest.arguments, "a=1  --b c");
    for (word, format) in [
        ("auto", ImageFormat::Auto),
        ("linux", ImageFormat::Linux),
        ("multiboot", ImageFormat::Multiboot),
        ("multiboot2", ImageFormat::Multiboot2),
        ("pvh", ImageFormat::Pvh),
        ("flat", ImageFormat::Flat { address: 0x10_0000 }),
    ] {
        assert_eq!(one(&alloc::format!("format={word}")).format, format);
    }
}

#[test]
fn a_guest_without_a_name_is_called_after_its_file_or_its_number() {
    assert_eq!(one("/boot/hello.elf32 mem=8M").name, "hello");
    assert_eq!(one("hello").name, "hello");
    assert_eq!(one("/boot/ mem=8M").name, "vm1");
    assert_eq!(one("/boot/a+b mem=8M").name, "vm1");
    let guests = parse_guests(["mem=8M", "mem=8M", "of=vm2 -- x"]).unwrap();
    assert_eq!(guests[1].name, "vm2");
    assert_eq!(guests[1].image, 1);
    assert_eq!(guests[1].modules, vec![GuestModule { index: 2, arguments: "x".to_string() }]);
}

#[test]
fn modules_reach_their_guest_in_order_even_before_it() {
    let guests = parse_guests(["/disk of=b -- first", "name=a", "name=b", "of=b", "of=a -- x y"]).unwrap();
    assert_eq!(guests.len(), 2);
    assert_eq!(guests[0].modules, vec![GuestModule { index: 4, arguments: "x y".to_string() }]);
    assert_eq!(guests[1].image, 2);
    let expected = vec![
        GuestModule { index: 0, arguments: "first".to_string() },
        GuestModule { index: 3, arguments: String::new() },
    ];
    assert_eq!(guests[1].modules, expected);
}

#[test]
fn sizes_have_suffixes_and_limits() {
    assert_eq!(one("mem=2048k").memory, 2 << 20);
    assert_eq!(one("mem=3G").memory, 3 << 30);
    assert_eq!(one("mem=0x200000").memory, 2 << 20);
    for bad in
        ["0", "", "M", "16X", "512K", "4G", "1048577", "-16M", "+16M", "99999999999999999999M", "0xFFFFFFFFFFFFFFFFG"]
    {
        let line = format!("mem={bad}");
        let text = refusal(&[&line]);
        assert_eq!(
            text,
            format!("module 1: mem={bad} cannot be used: expected a size from 1M to 3G in steps of 4K, such as 16M")
        );
    }
}

#[test]
fn refusals_name_the_module_and_what_was_expected() {
    let words = format!("expected {WORDS}");
    assert_eq!(refusal(&["", "cpus=2"]), format!("module 2: unknown word `cpus=2`: {words}"));
    assert_eq!(refusal(&["name=a root"]), format!("module 1: unknown word `root`: {words}"));
    assert_eq!(refusal(&["name=a name=b"]), "module 1: name= is given twice: expected it once");
    assert_eq!(one("").shadow, Policy::RECOMMENDED);
    assert_eq!(one("shadow=unsync,reuse=off").shadow, "unsync,reuse=off".parse().unwrap());
    let policies = alloc::format!("module 1: shadow=best cannot be used: expected {}", Policy::WORDS);
    assert_eq!(refusal(&["shadow=best"]), policies);
    assert_eq!(refusal(&["time=fast"]), "module 1: time=fast cannot be used: expected real or virtual");
    assert_eq!(
        refusal(&["format=elf"]),
        "module 1: format=elf cannot be used: expected auto, linux, multiboot, multiboot2, pvh or flat"
    );
    assert!(refusal(&["name="]).contains("expected 1 to 32 letters"));
    assert!(refusal(&["addr=0x1000"]).contains("expected format=flat"));
    assert!(refusal(&["format=multiboot addr=0x1000"]).contains("expected format=flat"));
    assert!(refusal(&["format=flat addr=0x100000000"]).contains("expected an address below 4G"));
    assert!(refusal(&["name=a", "of=a mem=1M"]).contains("at most disk= and save= beside it"));
    assert_eq!(refusal(&["name=a", "name=a"]), "two guests are called a: expected another name= for one of them");
    assert_eq!(
        refusal(&["name=a", "of=b"]),
        "module 2: of=b names no guest: expected the name of a guest among the boot modules"
    );
    assert!(refusal(&[]).contains("no guest to run"));
    assert!(refusal(&["of=a"]).contains("names no guest"));
}

#[test]
fn disks_have_their_places() {
    let guests = parse_guests(["name=a", "of=a disk=1 save=on", "of=a disk=0", "of=a"]).unwrap();
    let disk = |index, place, save| GuestDisk { index, place, save };
    assert_eq!(guests[0].disks, [disk(1, 1, Switch::On), disk(2, 0, Switch::Off)]);
    assert_eq!(guests[0].modules.len(), 1);
    for lines in [["name=a", "of=a disk=4"], ["name=a", "of=a save=on"], ["name=a", "name=b disk=0"]] {
        assert!(parse_guests(lines).is_err(), "{lines:?}");
    }
    assert!(parse_guests(["name=a", "of=a disk=0", "of=a disk=0"]).is_err());
}
