//! The function under an attribute, taken apart only as far as an attribute must. Called by `expand`.
//!
//! 1. The last token of a function is its body, so whatever is between the parameters and it is the result type.

use crate::arguments::Attribute;
use crate::tokens::{Error, is_group, is_mark, is_word};
use proc_macro::{Delimiter, Group, Ident, TokenStream, TokenTree};

/// An `async fn` without parameters, in pieces that keep the user's spans.
pub(crate) struct Function {
    /// `#[should_panic] /// docs`, in their order.
    pub(crate) attributes: TokenStream,
    /// `pub(crate)`, or nothing.
    pub(crate) visibility: TokenStream,
    /// What the user called it.
    pub(crate) name: Ident,
    /// `-> Result<(), Error>`, or nothing.
    pub(crate) returns: TokenStream,
    /// `{ … }`
    pub(crate) body: TokenStream,
}

/// Why a function cannot be used, and what may stand in its place so that this is the only error.
pub(crate) struct Refusal {
    pub(crate) error: Error,
    pub(crate) instead: TokenStream,
}

impl Function {
    /// Takes `item` apart.
    pub(crate) fn parse(attribute: Attribute, item: TokenStream) -> Result<Self, Refusal> {
        let (attribute, mend) = (attribute.name(), attribute.mend());
        let tokens: Vec<TokenTree> = item.clone().into_iter().collect();
        let as_it_is = |message: String, tokens: &[TokenTree]| Refusal {
            error: Error::over(tokens, message),
            instead: item.clone(),
        };

        let mut next = 0;
        while is_mark(tokens.get(next), '#') && is_group(tokens.get(next + 1), Delimiter::Bracket) {
            next += 2;
        }
        let attributes = tokens[..next].iter().cloned().collect();

        let start = next;
        // A visibility that went through `macro_rules!` is in an invisible group.
        if is_group(tokens.get(next), Delimiter::None) {
            next += 1;
        } else if is_word(tokens.get(next), "pub") {
            next += 1;
            if is_group(tokens.get(next), Delimiter::Parenthesis) {
                next += 1;
            }
        }
        let visibility = tokens[start..next].iter().cloned().collect();

        let qualifiers = next;
        let Some(fn_word) = (next..tokens.len()).find(|&at| is_word(tokens.get(at), "fn")) else {
            return Err(as_it_is(format!("{attribute} goes on an `async fn`"), &tokens[start..]));
        };
        let Some(TokenTree::Ident(name)) = tokens.get(fn_word + 1) else {
            return Err(as_it_is(format!("{attribute} goes on an `async fn`"), &tokens[start..]));
        };
        match &tokens[qualifiers..fn_word] {
            [word] if is_word(Some(word), "async") => {}
            words if words.iter().any(|word| is_word(Some(word), "async")) => {
                return Err(refuse(name, words, format!("{attribute} goes on a plain `async fn`, without this")));
            }
            _ => {
                let message = format!("{attribute} goes on an `async fn`: write `async fn {name}`");
                return Err(as_it_is(message, &tokens[fn_word..=fn_word + 1]));
            }
        }

        next = fn_word + 2;
        if is_mark(tokens.get(next), '<') {
            let end = (next..tokens.len()).find(|&at| is_group(tokens.get(at), Delimiter::Parenthesis));
            let generics = &tokens[next..end.unwrap_or(next + 1)];
            return Err(refuse(name, generics, format!("a function under {attribute} has no generics: {mend}")));
        }
        let Some(TokenTree::Group(parameters)) = tokens.get(next) else {
            return Err(as_it_is(format!("{attribute} goes on an `async fn`"), &tokens[start..]));
        };
        if !parameters.stream().is_empty() {
            let message = format!("a function under {attribute} has no parameters: {mend}");
            return Err(refuse(name, &tokens[next..=next], message));
        }

        next += 1;
        let body = tokens.len() - 1;
        if !is_body(&tokens[body]) || body < next {
            return Err(refuse(name, &tokens[body..], format!("a function under {attribute} has a body")));
        }
        let returns = &tokens[next..body];
        if let Some(at) = returns.iter().position(|token| is_word(Some(token), "where")) {
            return Err(refuse(name, &returns[at..], format!("a function under {attribute} has no generics: {mend}")));
        }
        if let Some(at) = outer_self(&tokens[next..]) {
            let message = format!("a function under {attribute} knows no `Self`: name the type");
            return Err(refuse(name, &[at], message));
        }
        Ok(Function {
            attributes,
            visibility,
            name: name.clone(),
            returns: returns.iter().cloned().collect(),
            body: tokens[body].clone().into(),
        })
    }

    /// The first attribute whose path is just `word`.
    pub(crate) fn attribute(&self, word: &str) -> Option<Group> {
        self.attributes.clone().into_iter().find_map(|token| match token {
            TokenTree::Group(group) => {
                let mut path = group.stream().into_iter();
                (is_word(path.next().as_ref(), word) && path.next().is_none()).then_some(group)
            }
            _ => None,
        })
    }

    /// Whether there is an attribute that begins with `word`, whatever follows it.
    pub(crate) fn has_attribute(&self, word: &str) -> bool {
        self.attributes.clone().into_iter().any(|token| match token {
            TokenTree::Group(group) => is_word(group.stream().into_iter().next().as_ref(), word),
            _ => false,
        })
    }

    /// The first token of the result type, if one is written: behind `-` and `>`.
    pub(crate) fn result(&self) -> Option<TokenTree> {
        self.returns.clone().into_iter().nth(2)
    }
}

/// Whether `token` is `{ … }`, perhaps in the invisible group of a `macro_rules!` fragment.
fn is_body(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::None => {
            let mut inner = group.stream().into_iter();
            inner.next().as_ref().is_some_and(is_body) && inner.next().is_none()
        }
        token => is_group(Some(token), Delimiter::Brace),
    }
}

/// A `Self` that is the one of an `impl` around the function, which its body, an item of its own, does not know.
fn outer_self(tokens: &[TokenTree]) -> Option<TokenTree> {
    let mut found = None;
    // What has a `Self` of its own, or may become so.
    let has_items = tokens_in(tokens, &mut |token| {
        let TokenTree::Ident(word) = token else { return false };
        match word.to_string().as_str() {
            "impl" | "trait" | "struct" | "enum" | "union" | "macro_rules" => return true,
            "Self" if found.is_none() => found = Some(token.clone()),
            _ => {}
        }
        false
    });
    if has_items { None } else { found }
}

/// Whether `is_it` holds for one of `tokens`, also inside of groups; what is given to a macro is left out.
fn tokens_in(tokens: &[TokenTree], is_it: &mut impl FnMut(&TokenTree) -> bool) -> bool {
    tokens.iter().enumerate().any(|(at, token)| match token {
        TokenTree::Group(_) if at > 0 && is_mark(tokens.get(at - 1), '!') => false,
        TokenTree::Group(group) => tokens_in(&group.stream().into_iter().collect::<Vec<_>>(), is_it),
        token => is_it(token),
    })
}

/// A refusal of an item that the compiler would refuse too, were it to see it. A `main` leaves an empty one behind: a
/// program without a main is one more error.
fn refuse(name: &Ident, tokens: &[TokenTree], message: String) -> Refusal {
    let mut instead = TokenStream::new();
    if name.to_string() == "main" {
        instead.extend(crate::tokens::template("fn main() {}", name.span(), &[]));
    }
    Refusal { error: Error::over(tokens, message), instead }
}
