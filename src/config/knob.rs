//! The macro `knobs!`: one row for each knob, and everything that follows from it.

#[cfg(feature = "runtime")]
use super::value::{RawValue, ValueError};

/// Makes a section of the configuration from its rows.
///
/// ```text
/// knobs! {
///     /// Limits and rules for game clients.
///     #[derive(Debug, Clone, PartialEq)]
///     pub struct Client, keys "client." of |config: Config| config.client, {
///         /// Interval of the heartbeats that the handshake tells clients.
///         heartbeat: Option<Duration> = None, WholeSeconds(SECOND..=HOUR), pomelo "heartbeat";
///     }
/// }
/// ```
///
/// A row is: documentation, field, type, default, kind (the accepted values), and the name in Pomelo or
/// Pinus if there is one. `servers as "server"` names the key where it is not the field's own. `= GUARDED => EXACT` has two
/// defaults; the second one is that of `compat = "exact"`. `=> live` at the end
/// of a row says that SIGHUP changes the value while tangelo runs (`gateway/reload.rs`). A second
/// block has fields without a key. A new knob is a new row: its key, its check and its place in
/// `docs/configuration.md` follow.
macro_rules! knobs {
    (
        $(#[doc = $about:literal])*
        #[derive($($derive:ident),*)]
        pub struct $section:ident, keys $prefix:literal of |$owner:ident: $Owner:ident| $place:expr, {
            $(
                $(#[doc = $doc:literal])*
                $field:ident $(as $key:literal)?: $type:ty = $default:expr $(=> $exact:expr)?, $kind:expr
                $(, $framework:ident $name:literal)? $(=> $live:ident)?;
            )*
        }
        $({
            $($(#[doc = $other_doc:literal])* $other:ident: $other_type:ty = $other_default:expr $(=> $other_exact:expr)?;)*
        })?
    ) => {
        $(#[doc = $about])*
        #[derive($($derive),*)]
        pub struct $section {
            $(
                $(#[doc = $doc])*
                #[doc = concat!(
                    "\n\nKey `", $prefix, key!($field $($key)?), "`, default `", stringify!($default),
                    "`" $(, ", with `compat = exact` `", stringify!($exact), "`")?, ", expected `", stringify!($kind), "`." $(, " ", stringify!($framework), ": `", $name, "`.")?
                    $(, " `", stringify!($live), "`: SIGHUP changes it.")?
                )]
                pub $field: $type,
            )*
            $($($(#[doc = $other_doc])* pub $other: $other_type,)*)?
        }

        impl Default for $section {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($($other: $other_default,)*)?
                }
            }
        }

        impl $section {
            /// Returns the defaults of `compat = "exact"`.
            #[allow(dead_code, reason = "the sections of a list have no guards")]
            pub(crate) fn exact_defaults() -> Self {
                Self {
                    $($field: exact!($default $(, $exact)?),)*
                    $($($other: exact!($other_default $(, $other_exact)?),)*)?
                }
            }
        }

        #[cfg(feature = "runtime")]
        impl $section {
            #[cfg(test)]
            const ABOUT: &str = concat!($($about, "\n"),*).trim_ascii();

            pub(crate) const KNOBS: &[Knob<$Owner>] = &[$(Knob {
                key: concat!($prefix, key!($field $($key)?)),
                check_value: |$owner| $kind.check(&$place.$field),
                read_value: |$owner, raw| $kind.read(raw, &mut $place.$field),
                show_value: |$owner| $kind.show(&$place.$field),
                toml_value: |$owner| $kind.toml(&$place.$field),
                copy_value: |into, from| {
                    let value = {
                        let $owner = from;
                        $place.$field.clone()
                    };
                    let $owner = into;
                    $place.$field = value;
                },
                is_live: is_live!($($live)?),
                #[cfg(test)]
                doc: &[$($doc),*],
                #[cfg(test)]
                accepted: || $kind.to_string(),
                #[cfg(test)]
                default: || $kind.show(&$section::default().$field),
                #[cfg(test)]
                exact: || $kind.show(&$section::exact_defaults().$field),
                #[cfg(test)]
                origin: &[$(stringify!($framework), $name)?],
            }),*];
        }
    };
}

/// The key of a field: its own name, or the one that the row gives.
macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

/// The default of `compat = "exact"`: that of the row, unless it has a second one.
macro_rules! exact {
    ($default:expr) => {
        $default
    };
    ($default:expr, $exact:expr) => {
        $exact
    };
}

/// Returns whether a row ends with `=> live`.
#[cfg(feature = "runtime")]
macro_rules! is_live {
    () => {
        false
    };
    (live) => {
        true
    };
}

#[cfg(feature = "runtime")]
pub(super) use is_live;
pub(super) use {exact, key, knobs};

/// A key of the configuration, and the functions for its value.
#[cfg(feature = "runtime")]
pub(crate) struct Knob<Owner: 'static> {
    pub(crate) key: &'static str,
    pub(super) check_value: fn(&Owner) -> Result<(), ValueError>,
    pub(super) read_value: fn(&mut Owner, RawValue<'_>) -> Result<(), ValueError>,
    pub(super) show_value: fn(&Owner) -> String,
    pub(super) toml_value: fn(&Owner) -> Option<String>,
    pub(super) copy_value: fn(&mut Owner, &Owner),
    /// SIGHUP changes the value while tangelo runs.
    pub(crate) is_live: bool,
    /// Documentation, line by line.
    #[cfg(test)]
    pub(super) doc: &'static [&'static str],
    #[cfg(test)]
    pub(super) accepted: fn() -> String,
    #[cfg(test)]
    pub(super) default: fn() -> String,
    #[cfg(test)]
    pub(super) exact: fn() -> String,
    /// Framework and the knob's name there; empty without one.
    #[cfg(test)]
    pub(super) origin: &'static [&'static str],
}

#[cfg(feature = "runtime")]
impl<Owner> Knob<Owner> {
    /// Checks the value that a configuration has.
    pub(crate) fn check(&self, owner: &Owner) -> Result<(), ValueError> {
        (self.check_value)(owner).map_err(|error| error.under(self.key))
    }

    /// Returns the value that a configuration has, as `tangelo.toml` has it; `none` for a key without a value.
    pub(crate) fn show(&self, owner: &Owner) -> String {
        (self.show_value)(owner)
    }

    /// Returns the value that a configuration has, as the right side of a line of TOML; `None` without a value.
    pub(crate) fn toml(&self, owner: &Owner) -> Option<String> {
        (self.toml_value)(owner)
    }

    /// Copies the value of another configuration.
    pub(crate) fn copy(&self, into: &mut Owner, from: &Owner) {
        (self.copy_value)(into, from);
    }

    /// Reads a written value into a configuration. A wrong one changes nothing.
    pub(crate) fn read(&self, owner: &mut Owner, raw: RawValue<'_>) -> Result<(), ValueError> {
        (self.read_value)(owner, raw).map_err(|error| error.under(self.key))
    }
}
