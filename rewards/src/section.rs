//! One declaration gives a section of the configuration its keys, types, defaults and
//! documentation.

/// Declares a section of the configuration: a struct of documented keys with their defaults, read
/// strictly.
#[macro_export]
macro_rules! section {
    ($(#[$about:meta])* $name:ident { $($(#[doc = $doc:literal])* $key:ident: $kind:ty = $default:expr,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[doc = $doc])* pub $key: $kind,)* }

        impl $name {
            /// The keys with their documentation.
            pub const DOCUMENTED: &[(&str, &str)] = &[$((stringify!($key), concat!($($doc, "\n"),*)),)*];
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default.into(),)* }
            }
        }
    };
}
