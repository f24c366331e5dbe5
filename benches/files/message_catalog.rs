//! Translations in a compiled message catalog of gettext (`.mo`).

/// Magic number of a catalog in the byte order of this machine.
const MAGIC: u32 = 0x9504_12DE;

/// All translations with non-ASCII characters, one per line; empty if this is not a catalog.
pub(crate) fn translations(catalog: &[u8]) -> String {
    let number = |at: usize| Some(u32::from_ne_bytes(*catalog.get(at..)?.first_chunk()?) as usize);
    let mut text = String::new();
    if number(0) != Some(MAGIC as usize) {
        return text;
    }
    let (Some(count), Some(table)) = (number(8), number(16)) else { return text };
    for entry in 0..count {
        let entry = table + 8 * entry;
        let (Some(length), Some(start)) = (number(entry), number(entry + 4)) else { break };
        let translation = catalog.get(start..).and_then(|rest| rest.get(..length));
        // Plural forms are separated by zeros.
        for form in translation.unwrap_or_default().split(|&byte| byte == 0) {
            if let Ok(form) = str::from_utf8(form)
                && !form.is_ascii()
            {
                text.push_str(form);
                text.push('\n');
            }
        }
    }
    text
}
