//! What stands in the parentheses of an attribute. Called by `expand`.
//!
//! 1. Every argument that is wrong gives an error under that argument; the ones that are right count all the same.

use crate::tokens::{Error, flatten, is_mark, template};
use proc_macro::{Literal, Span, TokenStream, TokenTree};

/// Which attribute the arguments belong to.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Attribute {
    Main,
    Test,
}

impl Attribute {
    /// As the messages call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Attribute::Main => "`#[gmp::main]`",
            Attribute::Test => "`#[gmp::test]`",
        }
    }

    /// What to do about a function that cannot be under it, for what it has or names.
    pub(crate) fn mend(self) -> &'static str {
        match self {
            Attribute::Main => "leave the attribute out, and call it in `gmp::block_on`",
            Attribute::Test => "let it call an `async fn` that has them",
        }
    }

    /// The end of every message about an argument that is not one.
    fn accepted(self) -> String {
        let words = match self {
            Attribute::Main => ", `send`, `local`",
            Attribute::Test => ", `start_paused = true`, `external_wakers`",
        };
        format!(
            "{} takes `procs = 4` (or `worker_threads = 4`), `name = \"web\"`, \
             `crate = \"path\"`{words}",
            self.name()
        )
    }
}

/// Where the body of a main runs.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Via {
    /// As a task if its future is `Send`, else on the main thread.
    Either,
    /// As a task: `send`.
    Spawned,
    /// On the main thread: `local`.
    Local,
}

/// The arguments of one attribute.
pub(crate) struct Arguments {
    /// The path of the façade.
    pub(crate) gmp: TokenStream,
    /// Calls on the runtime's builder: `.procs(4).thread_name("web")`.
    pub(crate) settings: TokenStream,
    /// Where the body runs.
    pub(crate) via: Via,
    /// What is wrong with the arguments.
    pub(crate) errors: Vec<Error>,
}

impl Arguments {
    pub(crate) fn parse(attribute: Attribute, stream: TokenStream) -> Self {
        let mut arguments = Arguments {
            gmp: template("::gmp", Span::mixed_site(), &[]),
            settings: TokenStream::new(),
            via: Via::Either,
            errors: Vec::new(),
        };
        let tokens = flatten(stream);
        let mut parts: Vec<_> = tokens.split(|token| is_mark(Some(token), ',')).collect();
        // The empty part behind a trailing comma, and that of empty parentheses.
        if parts.last().is_some_and(|part| part.is_empty()) {
            parts.pop();
        }
        let mut seen = Vec::new();
        for part in parts {
            if let Err(message) = arguments.take(attribute, part, &mut seen) {
                arguments.errors.push(Error::over(part, message));
            }
        }
        arguments
    }

    /// Takes one argument, or says what is wrong with it.
    fn take(&mut self, attribute: Attribute, part: &[TokenTree], seen: &mut Vec<&'static str>) -> Result<(), String> {
        let (key, value) = match part {
            [TokenTree::Ident(key)] => (key.to_string(), None),
            [TokenTree::Ident(key), equals, value @ ..] if is_mark(Some(equals), '=') => (key.to_string(), Some(value)),
            _ => return Err(format!("this is no argument: {}", attribute.accepted())),
        };
        let mut once = |key: &'static str| {
            if seen.contains(&key) {
                return Err(format!("`{key}` is given twice"));
            }
            seen.push(key);
            Ok(())
        };
        match (key.as_str(), value) {
            ("procs" | "worker_threads", value) => {
                // They are one setting under two names.
                once("procs")?;
                let (procs, span) = count(&key, value)?;
                let mut procs = Literal::usize_unsuffixed(procs);
                procs.set_span(span);
                self.set(".procs($value)", procs.into());
            }
            ("name", value) => {
                once("name")?;
                let value = string(value).ok_or("`name` is a string: `name = \"web\"`")?;
                self.set(".thread_name($value)", value.into());
            }
            ("crate", value) => {
                once("crate")?;
                self.gmp = string(value)
                    .and_then(|value| path(&value))
                    .ok_or("`crate` is a path in a string: `crate = \"my::gmp\"`")?;
            }
            ("start_paused", value) if attribute == Attribute::Test => {
                once("start_paused")?;
                match value {
                    Some([TokenTree::Ident(value)]) if matches!(value.to_string().as_str(), "true" | "false") => {
                        self.set(".start_paused($value)", value.clone().into());
                    }
                    _ => return Err("`start_paused` is `true` or `false`: `start_paused = true`".into()),
                }
            }
            ("start_paused", _) => {
                return Err(
                    "`start_paused` is for `#[gmp::test]`: a main whose time stands calls `gmp::time::pause`".into()
                );
            }
            ("flavor", value) => {
                once("flavor")?;
                match string(value).and_then(|value| text(&value)).as_deref() {
                    Some("multi_thread") => {}
                    Some("current_thread") => return Err("gmp has one scheduler: use `procs = 1`".into()),
                    _ => return Err("gmp has one scheduler: leave `flavor` out".into()),
                }
            }
            ("send", None) if attribute == Attribute::Main => {
                once("send")?;
                self.choose(Via::Spawned)?;
            }
            ("local", None) if attribute == Attribute::Main => {
                once("local")?;
                self.choose(Via::Local)?;
            }
            ("send" | "local", Some(_)) if attribute == Attribute::Main => {
                return Err(format!("`{key}` has no value: `#[gmp::main({key})]`"));
            }
            ("external_wakers", None) if attribute == Attribute::Test => {
                once("external_wakers")?;
                self.settings.extend(template(".external_wakers(true)", Span::mixed_site(), &[]));
            }
            ("external_wakers", Some(_)) if attribute == Attribute::Test => {
                return Err("`external_wakers` has no value: `#[gmp::test(external_wakers)]`".into());
            }
            (key, _) => return Err(format!("unknown argument `{key}`: {}", attribute.accepted())),
        }
        Ok(())
    }

    fn set(&mut self, call: &str, value: TokenTree) {
        self.settings.extend(template(call, Span::mixed_site(), &[("value", &value.into())]));
    }

    fn choose(&mut self, via: Via) -> Result<(), String> {
        if self.via != Via::Either {
            return Err("`send` and `local` exclude each other".into());
        }
        self.via = via;
        Ok(())
    }
}

/// A number of processors and where it stands.
fn count(key: &str, value: Option<&[TokenTree]>) -> Result<(usize, Span), String> {
    let number = || format!("`{key}` is a whole number: `{key} = 4`");
    let Some([TokenTree::Literal(value)]) = value else {
        return Err(number());
    };
    match number_in(&value.to_string()) {
        Some(0) => Err(format!("`{key} = {value}`: a runtime has at least one processor")),
        Some(procs) => Ok((procs, value.span())),
        None => Err(number()),
    }
}

/// The value of a decimal literal such as `4`, `1_000` or `4usize`.
fn number_in(literal: &str) -> Option<usize> {
    literal.strip_suffix("usize").unwrap_or(literal).replace('_', "").parse().ok()
}

/// The literal, if the value is one string.
fn string(value: Option<&[TokenTree]>) -> Option<Literal> {
    match value {
        Some([TokenTree::Literal(value)]) if is_string(&value.to_string()) => Some(value.clone()),
        _ => None,
    }
}

fn is_string(literal: &str) -> bool {
    literal.starts_with(['"', 'r'])
}

fn text(value: &Literal) -> Option<String> {
    text_in(&value.to_string()).map(str::to_owned)
}

/// What is between the quotes of a string that needs no escapes.
fn text_in(literal: &str) -> Option<&str> {
    let text = literal.strip_prefix('"')?.strip_suffix('"')?;
    (!text.contains('\\')).then_some(text)
}

/// The path in a string, each of its tokens where the string is.
fn path(value: &Literal) -> Option<TokenStream> {
    let text = text(value)?;
    if !is_path(&text) {
        return None;
    }
    let span = Span::call_site().located_at(value.span());
    Some(template(&text, span, &[]))
}

/// Whether `text` is identifiers with `::` between them, and perhaps one in front.
fn is_path(text: &str) -> bool {
    let word = |word: &str| {
        let word = word.strip_prefix("r#").unwrap_or(word);
        word.starts_with(|first: char| first.is_alphabetic() || first == '_')
            && word.chars().all(|char| char.is_alphanumeric() || char == '_')
    };
    text.strip_prefix("::").unwrap_or(text).split("::").all(word)
}

#[cfg(test)]
mod tests {
    use super::{is_path, is_string, number_in, text_in};

    #[test]
    fn r24_a_number_of_procs_is_decimal() {
        assert_eq!(number_in("4"), Some(4));
        assert_eq!(number_in("1_000usize"), Some(1000));
        assert_eq!(number_in("0"), Some(0));
        for other in ["4.0", "\"4\"", "4i32", "0x4", "99999999999999999999999"] {
            assert_eq!(number_in(other), None, "{other}");
        }
    }

    #[test]
    fn r24_a_crate_is_a_path() {
        for path in ["gmp", "::gmp", "my::own::gmp", "crate::rt", "r#async::gmp", "_x"] {
            assert!(is_path(path), "{path}");
        }
        for other in ["", "::", "a b", "a::", "a:b", "1a", "a::<u8>", "my-gmp", "a; b"] {
            assert!(!is_path(other), "{other}");
        }
    }

    #[test]
    fn r24_strings_are_told_from_other_literals() {
        assert!(is_string("\"web\"") && is_string("r#\"web\"#"));
        assert!(!is_string("b\"web\"") && !is_string("c\"web\"") && !is_string("'w'") && !is_string("4"));
        assert_eq!(text_in("\"web\""), Some("web"));
        assert_eq!(text_in("\"a\\n\""), None);
    }
}
