//! Names for addresses, from an ELF file's symbol table.

use anyhow::Context as _;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionFlags, SymbolKind};

/// A named range of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Name, demangled.
    pub name: String,
}

/// The symbols of one image, by address.
#[derive(Clone, Debug, Default)]
pub struct Symbols(Vec<Symbol>);

impl Symbols {
    /// The symbols of an ELF file: everything that lies in an allocated section. Symbols of size 0, which assembly leaves,
    /// reach to the next one or to the end of their section.
    ///
    /// # Errors
    /// If it is no ELF file.
    pub fn from_elf(elf: &[u8]) -> anyhow::Result<Self> {
        let file = object::File::parse(elf).context("no ELF file")?;
        // Where a symbol's section ends, if the section is in memory.
        let limit = |symbol: &object::Symbol<'_, '_>| {
            let section = file.section_by_index(symbol.section_index()?).ok()?;
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else { return None };
            let allocated = sh_flags.0 & object::elf::SHF_ALLOC.0 != 0;
            allocated.then(|| section.address().saturating_add(section.size()))
        };
        let useful = |symbol: &object::Symbol<'_, '_>| {
            matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data | SymbolKind::Unknown | SymbolKind::Label)
                && symbol.name().is_ok_and(|name| !name.is_empty() && !name.starts_with(".L"))
        };
        let named = |symbol: object::Symbol<'_, '_>| {
            let limit = limit(&symbol)?;
            let name = format!("{:#}", rustc_demangle::demangle(symbol.name().ok()?));
            let end = if symbol.size() == 0 { limit } else { symbol.address().saturating_add(symbol.size()) };
            Some(Symbol { start: symbol.address(), end, name })
        };
        Ok(Self::new(file.symbols().filter(useful).filter_map(named).collect()))
    }

    /// Symbols that overlap end where the next one begins.
    fn new(mut list: Vec<Symbol>) -> Self {
        // Of several names for one address, the longest stays.
        list.sort_by(|a, b| a.start.cmp(&b.start).then(b.end.cmp(&a.end)));
        list.dedup_by_key(|symbol| symbol.start);
        let starts: Vec<u64> = list.iter().map(|symbol| symbol.start).skip(1).chain([u64::MAX]).collect();
        for (symbol, next) in list.iter_mut().zip(starts) {
            symbol.end = symbol.end.min(next);
        }
        Self(list)
    }

    /// Symbols from (address, size, name).
    #[must_use]
    pub fn from_list(list: impl IntoIterator<Item = (u64, u64, String)>) -> Self {
        let symbol = |(start, size, name): (u64, u64, String)| Symbol { start, end: start.saturating_add(size), name };
        Self::new(list.into_iter().map(symbol).collect())
    }

    /// The symbol that holds `address`.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&Symbol> {
        let after = self.0.partition_point(|symbol| symbol.start <= address);
        self.0.get(after.checked_sub(1)?).filter(|symbol| address < symbol.end)
    }

    /// `name` or `name+0x12`.
    #[must_use]
    pub fn describe(&self, address: u64) -> Option<String> {
        let symbol = self.find(address)?;
        let offset = address - symbol.start;
        Some(if offset == 0 { symbol.name.clone() } else { format!("{}+{offset:#x}", symbol.name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_described() {
        let list = [(0x10, 0x100, "label"), (0x20, 8, "sized"), (0x20, 0, "alias"), (0x30, 0x10, "last")];
        let symbols = Symbols::from_list(list.map(|(start, size, name)| (start, size, name.to_owned())));
        assert_eq!(symbols.describe(0x0f), None);
        assert_eq!(symbols.describe(0x1f).as_deref(), Some("label+0xf"));
        assert_eq!(symbols.describe(0x20).as_deref(), Some("sized"));
        assert_eq!(symbols.describe(0x28), None, "after a symbol with a size");
        assert_eq!(symbols.describe(0x31).as_deref(), Some("last+0x1"));
        assert_eq!(symbols.describe(0x40), None);
    }
}
