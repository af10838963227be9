//! The address of a store, as an argument.

use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};
use countersign_store::StoreUrl;

/// Reads the address of a store. An error does not repeat it, as clap's own would: it may hold a password.
#[derive(Clone, Copy, Debug)]
pub struct StoreAddress;

impl TypedValueParser for StoreAddress {
    type Value = StoreUrl;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<StoreUrl, Error> {
        let read = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned()).and_then(str::parse);
        read.map_err(|error: String| {
            let arg = arg.map(Arg::to_string).unwrap_or_default();
            let message = format!("the store that is given as '{arg}' cannot be used: {error}\n");
            Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}
