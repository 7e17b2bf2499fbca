#!/bin/sh
# Prints the licences of all code in the binary. It runs while the image is built, on the sources of
# that build, so the output cannot be out of date.
#
#   sh deploy/third-party.sh --target x86_64-unknown-linux-musl [--no-default-features]
#
# Exits with 1, which fails the build of the image, if a crate has no licence text.
set -eu

registry="${CARGO_HOME:-$HOME/.cargo}/registry/src"
target="$(printf '%s\n' "$@" | grep -m 1 -e '-linux-')" || target="$(rustc --print host-tuple)"

# Procedural macros run at build time and are not linked.
crates() {
    cargo tree --locked --offline --edges normal,no-proc-macro --prefix none \
        --format '{p}|{l}' "$@" | sed 's/ (\*)$//; s/ (proc-macro)//' | sort -u | grep -v '^wspulse '
}

# For a crate with a choice of MIT or another licence, MIT.
texts() {
    find "$1" -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'copyright*' \
        -o -iname 'notice*' -o -path '*/.licenses/*' -o -path '*/licenses/*' \) \
        ! -name '*.rs' ! -name '*.toml' | sort | while read -r file; do
        name="$(basename "$file" | tr '[:upper:]' '[:lower:]')"
        case "$2|$name" in
            *MIT*" OR "*"|"*apache* | *" OR "*MIT*"|"*apache*) ;;
            *MIT*" OR "*"|"*zlib* | *" OR "*MIT*"|"*zlib*) ;;
            *MIT*" OR "*"|"*isc* | *" OR "*MIT*"|"*isc*) ;;
            *) echo "$file" ;;
        esac
    done
}

of_crate() {
    name="${1%% *}" version="${1#* v}" licence="$2"
    folder="$(find "$registry" -mindepth 2 -maxdepth 2 -name "$name-$version" | head -n 1)"
    found="$(texts "${folder:-/nowhere}" "$licence")"
    if [ -z "$found" ]; then
        echo "third-party.sh: no licence text of $name $version under $registry" >&2
        return 1
    fi
    printf '\n======== %s %s: %s\n' "$name" "$version" "$licence"
    echo "$found" | while read -r file; do
        printf '\n---- %s\n\n' "${file#"$folder/"}"
        cat "$file"
        echo
    done
}

# The Rust distribution contains the licences of the standard library as HTML.
of_library() {
    page="$(rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html"
    printf '\n======== the Rust standard library: MIT OR Apache-2.0, and those below\n\n'
    if ! [ -e "$page" ]; then
        echo "third-party.sh: the licences of the standard library are missing: $page" >&2
        return 1
    fi
    sed 's/<[^>]*>//g; s/&#34;/"/g; s/&quot;/"/g; s/&#39;/'"'"'/g; s/&lt;/</g; s/&gt;/>/g
        s/&amp;/\&/g' "$page"
}

of_c_library() {
    case "$target" in
        *musl) cat <<'TEXT'

======== musl: MIT

musl as a whole is licensed under the following standard MIT license:

Copyright © 2005-2020 Rich Felker, et al.

Permission is hereby granted, free of charge, to any person obtaining
a copy of this software and associated documentation files (the
"Software"), to deal in the Software without restriction, including
without limitation the rights to use, copy, modify, merge, publish,
distribute, sublicense, and/or sell copies of the Software, and to
permit persons to whom the Software is furnished to do so, subject to
the following conditions:

The above copyright notice and this permission notice shall be
included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND,
EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.
IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY
CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT,
TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
TEXT
            ;;
        *) printf '\n======== the GNU C Library: LGPL-2.1-or-later\n\n%s\n%s\n' \
            'Its sources: https://www.gnu.org/software/libc/. Linked into a static binary, it can be' \
            'replaced by building that anew from the sources of wspulse, which are MIT OR Apache-2.0.' ;;
    esac
}

# Prints the Apache License, which many crates contain, only once, and squeezes blank lines.
once() {
    awk '
        /^[ \t]*Apache License[ \t\r]*$/ && ++seen > 1 {
            skipping = 1; print "(the Apache License, Version 2.0, as above)"
        }
        skipping == 2 && /[^ \t\r]/ { skipping = /APPENDIX/ ? 3 : 0 }
        !skipping { sub(/[ \t\r]+$/, ""); if ($0 != "" || last != "") print; last = $0 }
        skipping == 1 && /END OF TERMS AND CONDITIONS/ { skipping = 2 }
        skipping == 3 && /limitations under the License/ { skipping = 0 }
        END { if (skipping % 2) exit 1 }'
}

all() {
    # In a variable first, since a failure inside a pipe would go unnoticed.
    listed="$(crates "$@")"
    printf 'wspulse is MIT OR Apache-2.0. In this binary there is also:\n'
    echo "$listed" | while IFS='|' read -r crate licence; do
        of_crate "$crate" "$(echo "$licence" | sed 's,/, OR ,g')"
    done
    of_library
    of_c_library
}

text="$(all "$@")"
printf '%s\n' "$text" | once
