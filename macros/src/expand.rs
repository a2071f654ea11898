//! What the attributes turn a function into. Called by `lib`.
//!
//! ```text
//! fn main() -> ::std::process::ExitCode {             fn name() -> Result<(), E> {
//!     async fn __gmp_body() -> Result<(), E> { … }        async fn __gmp_body() -> Result<(), E> { … }
//!     {                                                   ::gmp::__private::test(
//!         use ::gmp::__private::via::*;                       ::gmp::__private::test_builder().procs(4),
//!         let body = __gmp_body();                            __gmp_body(),
//!         (&::gmp::__private::Probe::of(&body))           )
//!             .via()                                  }
//!             .run(::gmp::__private::main_builder().procs(4), body)
//!     }
//! }
//! ```
//!
//! With `send` and `local`, `Spawned` and `Local` of `::gmp::__private` stand where the probe does. A function that is
//! not called `main` is `#[must_use]`: who drops its status drops the failure that the body ended with.
//!
//! 1. The import is in a block of its own, which the body is not in: the body sees no name of ours but `__gmp_body`.
//! 2. The import is a glob because one of its two traits stays unused; a glob of which anything is used gets no
//!    warning, and an `#[allow]` would be an error under `#![forbid(unused_imports)]`.
//! 3. Tokens of ours carry spans of the expansion, also where they are placed on the user's: lints that look for code
//!    which nobody wrote (`clippy::unused_async`) then leave them alone.

use crate::arguments::{Arguments, Attribute, Via};
use crate::function::{Function, Refusal};
use crate::tokens::{Error, template};
use proc_macro::{Span, TokenStream, TokenTree};

const MUST_USE: &str = "#[must_use = \"the status of the body: return it from `main`; for the body's own result call \
    an `async fn` without the attribute in `gmp::block_on`\"]";

/// The expansion of `#[gmp::main]`.
pub(crate) fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = Arguments::parse(Attribute::Main, arguments);
    let function = match Function::parse(Attribute::Main, item) {
        Ok(function) => function,
        Err(refusal) => return refused(arguments.errors, refusal),
    };
    let site = Span::mixed_site();
    let gmp = &arguments.gmp;
    let via = match arguments.via {
        Via::Either => template("(&$gmp::__private::Probe::of(&body)).via()", site, &[("gmp", gmp)]),
        Via::Spawned => template("$gmp::__private::Spawned", site, &[("gmp", gmp)]),
        Via::Local => template("$gmp::__private::Local", site, &[("gmp", gmp)]),
    };
    let import = match arguments.via {
        Via::Either => template("use $gmp::__private::via::*;", site, &[("gmp", gmp)]),
        Via::Spawned | Via::Local => TokenStream::new(),
    };
    // What `run` asks for is `Send` of the body if the user said so, and a result that a main may have: its errors
    // point at the function's name, and at the result type.
    let blame = match (arguments.via, function.result()) {
        (Via::Either | Via::Local, Some(result)) => result.span(),
        _ => function.name.span(),
    };
    let body = template("body", site.located_at(blame), &[]);
    let block = template(
        "{ $import let body = __gmp_body(); $via.run($gmp::__private::main_builder() $settings, $body) }",
        site,
        &[("import", &import), ("via", &via), ("gmp", gmp), ("settings", &arguments.settings), ("body", &body)],
    );
    let returns = template("-> ::std::process::ExitCode", site, &[]);
    let must_use = if function.name.to_string() == "main" || function.has_attribute("must_use") {
        TokenStream::new()
    } else {
        template(MUST_USE, site, &[])
    };
    let function = function_around(&function, &must_use, &returns, &block);
    with_errors(arguments.errors, function)
}

/// The expansion of `#[gmp::test]`.
pub(crate) fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut arguments = Arguments::parse(Attribute::Test, arguments);
    let function = match Function::parse(Attribute::Test, item) {
        Ok(function) => function,
        Err(refusal) => return refused(arguments.errors, refusal),
    };
    let site = Span::mixed_site();
    let mut attribute = template("#[::core::prelude::v1::test]", site, &[]);
    if let Some(second) = function.attribute("test") {
        let message = "`#[gmp::test]` makes the function a test by itself: remove `#[test]`";
        arguments.errors.push(Error::at(second.span(), message));
        attribute = TokenStream::new();
    }
    let block = template(
        "$gmp::__private::test($gmp::__private::test_builder() $settings, __gmp_body())",
        site,
        &[("gmp", &arguments.gmp), ("settings", &arguments.settings)],
    );
    let function = function_around(&function, &attribute, &function.returns, &block);
    with_errors(arguments.errors, function)
}

/// The function that the user named, with their body as an item in it and `block` to run that.
fn function_around(
    function: &Function,
    attribute: &TokenStream,
    returns: &TokenStream,
    block: &TokenStream,
) -> TokenStream {
    let name = TokenTree::from(function.name.clone()).into();
    // On the user's name, so that what the compiler says about the signature of the body points there.
    let on_name = Span::mixed_site().located_at(function.name.span());
    let body = template(
        "async fn __gmp_body() $returns $body",
        on_name,
        &[("returns", &function.returns), ("body", &function.body)],
    );
    template(
        "$attribute $attributes $visibility fn $name() $returns { $body $block }",
        on_name,
        &[
            ("attribute", attribute),
            ("attributes", &function.attributes),
            ("visibility", &function.visibility),
            ("name", &name),
            ("returns", returns),
            ("body", &body),
            ("block", block),
        ],
    )
}

fn refused(errors: Vec<Error>, refusal: Refusal) -> TokenStream {
    with_errors(errors.into_iter().chain([refusal.error]), refusal.instead)
}

fn with_errors(errors: impl IntoIterator<Item = Error>, item: TokenStream) -> TokenStream {
    let mut all: TokenStream = errors.into_iter().map(Error::into_tokens).collect();
    all.extend(item);
    all
}
