//! Token streams without `syn` and `quote`: a template with holes, and errors that know where they are. Called by
//! every other file here.
//!
//! 1. A template's own tokens get the span that the caller names; what fills a hole keeps the spans it has.

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// Something wrong in what the user wrote, from the first to the last token that shows it.
pub(crate) struct Error {
    pub(crate) start: Span,
    pub(crate) end: Span,
    pub(crate) message: String,
}

impl Error {
    pub(crate) fn at(span: Span, message: impl Into<String>) -> Self {
        Error { start: span, end: span, message: message.into() }
    }

    /// An error under all of `tokens`; under the attribute itself if there are none.
    pub(crate) fn over(tokens: &[TokenTree], message: impl Into<String>) -> Self {
        let start = tokens.first().map_or_else(Span::call_site, TokenTree::span);
        let end = tokens.last().map_or(start, TokenTree::span);
        Error { start, end, message: message.into() }
    }

    /// `::core::compile_error! { "message" }`. The compiler underlines the whole invocation, from the first token's
    /// span to the last one's: that is how two spans make a range without `Span::join`.
    pub(crate) fn into_tokens(self) -> TokenStream {
        let mut message = Literal::string(&self.message);
        message.set_span(self.end);
        let mut braces = Group::new(Delimiter::Brace, TokenTree::from(message).into());
        braces.set_span(self.end);
        let colon = |spacing| {
            let mut colon = Punct::new(':', spacing);
            colon.set_span(self.start);
            TokenTree::from(colon)
        };
        let mut bang = Punct::new('!', Spacing::Alone);
        bang.set_span(self.end);
        [
            colon(Spacing::Joint),
            colon(Spacing::Alone),
            Ident::new("core", self.start).into(),
            colon(Spacing::Joint),
            colon(Spacing::Alone),
            Ident::new("compile_error", self.start).into(),
            bang.into(),
            braces.into(),
        ]
        .into_iter()
        .collect()
    }
}

/// Rust source with `$name` holes.
///
/// # Panics
///
/// If `source` is not Rust tokens or names a hole that is not in `holes`.
pub(crate) fn template(source: &str, span: Span, holes: &[(&str, &TokenStream)]) -> TokenStream {
    fill(source.parse().expect("a template of this crate is Rust"), span, holes)
}

fn fill(source: TokenStream, span: Span, holes: &[(&str, &TokenStream)]) -> TokenStream {
    let mut filled = TokenStream::new();
    let mut tokens = source.into_iter();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '$' => {
                let name = tokens.next().expect("a hole has a name").to_string();
                let (_, tokens) = holes.iter().find(|hole| hole.0 == name).expect("a hole has something to fill it");
                filled.extend((*tokens).clone());
            }
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), fill(group.stream(), span, holes));
                inner.set_span(span);
                filled.extend([TokenTree::from(inner)]);
            }
            mut token => {
                token.set_span(span);
                filled.extend([token]);
            }
        }
    }
    filled
}

/// The tokens of `stream` without the invisible groups that `macro_rules!` puts around a fragment it passes on.
pub(crate) fn flatten(stream: TokenStream) -> Vec<TokenTree> {
    let mut flat = Vec::new();
    for token in stream {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::None => flat.extend(flatten(group.stream())),
            token => flat.push(token),
        }
    }
    flat
}

/// Whether `token` is the word `word`.
pub(crate) fn is_word(token: Option<&TokenTree>, word: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident.to_string() == word)
}

/// Whether `token` is the character `mark`.
pub(crate) fn is_mark(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

/// Whether `token` is a group in `delimiter`.
pub(crate) fn is_group(token: Option<&TokenTree>, delimiter: Delimiter) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == delimiter)
}
