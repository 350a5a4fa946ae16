//! What one usage says, by all the names that it has.
//!
//! It is read once for each request, and with a tree or a deserializer that would cost more than all else that is done
//! about usage. What is read is taken out of the bytes; it need not be JSON in every respect.

use super::counts::Counts;

/// What a usage says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fields {
    prompt: Option<u64>,
    completion: Option<u64>,
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    /// The cached tokens in the details of the input.
    details: Option<u64>,
    cache_hit: Option<u64>,
    cache_read: Option<u64>,
    cache_creation: Option<u64>,
    gemini_prompt: Option<u64>,
    gemini_tools: Option<u64>,
    gemini_candidates: Option<u64>,
    gemini_thoughts: Option<u64>,
    gemini_cached: Option<u64>,
    tokens: Pair,
    billed: Pair,
}

#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    input: Option<u64>,
    output: Option<u64>,
}

/// The object that a field stands in.
#[derive(Debug, Clone, Copy)]
enum Within {
    Usage,
    Details,
    Tokens,
    Billed,
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (None, None) => None,
        _ => Some(one.unwrap_or_default().saturating_add(other.unwrap_or_default())),
    }
}

impl Fields {
    /// Reads the object that begins at `at`. Returns where it ends, too.
    pub(super) fn read(text: &[u8], at: usize) -> Option<(Self, usize)> {
        if text.get(at) != Some(&b'{') {
            return None;
        }
        let (mut fields, mut within, mut at) = (Self::default(), Within::Usage, at + 1);
        loop {
            match *text.get(at)? {
                b'"' => {
                    let end = string(text, at)?;
                    let name = &text[at + 1..end - 1];
                    at = space(text, end);
                    if text.get(at) != Some(&b':') {
                        return None;
                    }
                    at = space(text, at + 1);
                    match (text.get(at)?, fields.inner(within, name)) {
                        (b'{', Some(inner)) => (within, at) = (inner, at + 1),
                        (b'0'..=b'9', _) => {
                            let (count, end) = number(text, at);
                            if let Some(field) = fields.field(within, name) {
                                *field = count;
                            }
                            at = end;
                        }
                        _ => at = value(text, at)?,
                    }
                }
                b'}' if matches!(within, Within::Usage) => return Some((fields, at + 1)),
                b'}' => (within, at) = (Within::Usage, at + 1),
                b',' | b' ' | b'\n' | b'\r' | b'\t' => at += 1,
                _ => return None,
            }
        }
    }

    /// `None`: it counts no tokens.
    pub(super) fn counts(self) -> Option<Counts> {
        // Only Anthropic leaves the cached tokens out of its input.
        let apart = sum(self.cache_read, self.cache_creation).unwrap_or_default();
        let Self { tokens, billed, .. } = self;
        let counts = Counts {
            input: self
                .prompt
                .or_else(|| self.input.map(|input| input.saturating_add(apart)))
                .or_else(|| sum(self.gemini_prompt, self.gemini_tools))
                .or(tokens.input)
                .or(billed.input),
            output: self
                .completion
                .or(self.output)
                .or_else(|| sum(self.gemini_candidates, self.gemini_thoughts))
                .or(tokens.output)
                .or(billed.output),
            cached: self
                .details
                .or(self.gemini_cached)
                .or(self.cached)
                .or(self.cache_hit)
                .or(self.cache_read),
        };
        match (counts.input, counts.output) {
            // Embeddings of some give nothing else.
            (None, None) => self.total.map(|total| Counts { input: Some(total), ..counts }),
            _ => Some(counts),
        }
    }

    /// The object with this name, if something in it is asked.
    const fn inner(&self, within: Within, name: &[u8]) -> Option<Within> {
        match (within, name) {
            (Within::Usage, b"prompt_tokens_details" | b"input_tokens_details") => Some(Within::Details),
            (Within::Usage, b"tokens") => Some(Within::Tokens),
            (Within::Usage, b"billed_units") => Some(Within::Billed),
            _ => None,
        }
    }

    const fn field(&mut self, within: Within, name: &[u8]) -> Option<&mut Option<u64>> {
        Some(match (within, name) {
            (Within::Usage, b"prompt_tokens") => &mut self.prompt,
            (Within::Usage, b"completion_tokens") => &mut self.completion,
            (Within::Usage, b"input_tokens") => &mut self.input,
            (Within::Usage, b"output_tokens") => &mut self.output,
            (Within::Usage, b"total_tokens") => &mut self.total,
            (Within::Usage, b"cached_tokens") => &mut self.cached,
            (Within::Usage, b"prompt_cache_hit_tokens") => &mut self.cache_hit,
            (Within::Usage, b"cache_read_input_tokens") => &mut self.cache_read,
            (Within::Usage, b"cache_creation_input_tokens") => &mut self.cache_creation,
            (Within::Usage, b"promptTokenCount") => &mut self.gemini_prompt,
            (Within::Usage, b"toolUsePromptTokenCount") => &mut self.gemini_tools,
            (Within::Usage, b"candidatesTokenCount") => &mut self.gemini_candidates,
            (Within::Usage, b"thoughtsTokenCount") => &mut self.gemini_thoughts,
            (Within::Usage, b"cachedContentTokenCount") => &mut self.gemini_cached,
            (Within::Details, b"cached_tokens") => &mut self.details,
            (Within::Tokens, b"input_tokens") => &mut self.tokens.input,
            (Within::Tokens, b"output_tokens") => &mut self.tokens.output,
            (Within::Billed, b"input_tokens") => &mut self.billed.input,
            (Within::Billed, b"output_tokens") => &mut self.billed.output,
            _ => return None,
        })
    }
}

/// The first place from `at` on that isn't white space.
fn space(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Where the string ends that begins at `at`. They are short, and a search would take longer to begin than to find.
pub(super) fn string(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at + 1;
    loop {
        end += text.get(end..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if text[end] == b'"' {
            return Some(end + 1);
        }
        end += 2;
    }
}

/// The number that begins at `at`, and where it ends. Some write 12.0.
fn number(text: &[u8], at: usize) -> (Option<u64>, usize) {
    let (mut count, mut end) = (0_u64, at);
    while let Some(digit @ b'0'..=b'9') = text.get(end) {
        count = count.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
        end += 1;
    }
    if !matches!(text.get(end), Some(b'.' | b'e' | b'E')) {
        return (Some(count), end);
    }
    let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    let end = at + text[at..].iter().take_while(is_part).count();
    let number = str::from_utf8(&text[at..end]).ok().and_then(|text| text.parse::<f64>().ok());
    (number.map(|number| number as u64), end)
}

/// Where the value ends that begins at `at`, and that nothing is asked of.
fn value(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => string(text, at),
        b'{' | b'[' => {
            let (mut level, mut at) = (1_u32, at + 1);
            while level > 0 {
                match text.get(at)? {
                    b'"' => {
                        at = string(text, at)?;
                        continue;
                    }
                    b'{' | b'[' => level += 1,
                    b'}' | b']' => level -= 1,
                    _ => {}
                }
                at += 1;
            }
            Some(at)
        }
        b'}' | b']' | b',' | b':' => None,
        _ => {
            let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
            match text[at..].iter().take_while(is_part).count() {
                0 => None,
                length => Some(at + length),
            }
        }
    }
}
