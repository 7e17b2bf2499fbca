#!/bin/sh
# Prints a bill of materials of the binary as CycloneDX JSON, from Cargo.lock and `cargo tree`, so a
# build needs no further program. The output depends on nothing else, and has no date.
#
#   sh deploy/sbom.sh --target x86_64-unknown-linux-musl [--no-default-features]
#
# Procedural macros, which run at build time and are not linked, have the scope "excluded".
set -eu

target="$(printf '%s\n' "$@" | grep -m 1 -e '-linux-')" || target="$(rustc --print host-tuple)"

# tree KINDS OPTIONS…: the lines are depth, name, version and licence.
tree() {
    kinds="$1"
    shift
    # In a variable first, since a failure inside a pipe would go unnoticed.
    listed="$(cargo tree --locked --offline --edges "$kinds" --prefix depth \
        --format '|{p}|{l}' "$@")" || exit 1
    echo "$listed" | sed 's/ (\*)$//; s/ (proc-macro)//; s/^\([0-9]*\)|\([^ ]*\) v\([^ |]*\)[^|]*|/\1|\2|\3|/'
}

linked="$(tree normal,no-proc-macro "$@")"
all="$(tree normal "$@")"

{
    echo "$linked" | sed 's/^/linked|/'
    echo "$all" | sed 's/^/all|/'
    awk -F '"' '/^name = / { name = $2 } /^version = / { version = $2 }
        /^checksum = / { print "checksum|" name "|" version "|" $2 }' Cargo.lock
} | awk -F '|' -v target="$target" -v rust="$(rustc --version | cut -d ' ' -f 2)" '
    function text(value) { gsub(/[\\"]/, "\\\\&", value); return "\"" value "\"" }
    function licences(expression) {
        gsub("/", " OR ", expression)
        return "\"licenses\":[{\"expression\":" text(expression) "}]"
    }
    function component(id) {
        return "\"bom-ref\":" text(purl[id]) ",\"name\":" text(name[id]) ",\"version\":" text(version[id]) \
            "," licences(licence[id]) ",\"purl\":" text(purl[id])
    }
    $1 == "linked" { in_binary[$3 " " $4] = 1 }
    $1 == "all" {
        id = $3 " " $4
        if (!(id in name)) {
            order[count++] = id
            name[id] = $3; version[id] = $4; licence[id] = $5
            gsub(/\+/, "%2B", $4)
            purl[id] = "pkg:cargo/" $3 "@" $4
        }
        path[$2] = id
        # A subtree that was printed before is not repeated, so each edge comes once.
        if ($2 > 0 && !((path[$2 - 1], id) in edge)) {
            edge[path[$2 - 1], id] = 1
            needs[path[$2 - 1]] = needs[path[$2 - 1]] "," text(purl[id])
        }
    }
    $1 == "checksum" { checksum[$2 " " $3] = $4 }
    END {
        if (count == 0) exit 1
        print "{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.5\",\"version\":1,\"metadata\":{"
        print "\"component\":{\"type\":\"application\"," component(order[0]) "},"
        print "\"properties\":[{\"name\":\"cargo:target\",\"value\":" text(target) "}]},"
        print "\"components\":["
        for (i = 1; i < count; i++) {
            id = order[i]
            if (!(id in checksum)) { print "sbom.sh: no checksum of " id > "/dev/stderr"; exit 1 }
            print "{\"type\":\"library\",\"scope\":\"" (id in in_binary ? "required" : "excluded") "\"," \
                component(id) ",\"hashes\":[{\"alg\":\"SHA-256\",\"content\":" text(checksum[id]) "}]},"
        }
        if (target ~ /musl$/) print "{\"type\":\"library\",\"name\":\"musl\"," licences("MIT") "},"
        print "{\"type\":\"library\",\"name\":\"std\",\"version\":" text(rust) "," \
            licences("MIT OR Apache-2.0") ",\"cpe\":" text("cpe:2.3:a:rust-lang:rust:" rust ":*:*:*:*:*:*:*") "}"
        print "],\"dependencies\":["
        for (i = 0; i < count; i++)
            print "{\"ref\":" text(purl[order[i]]) ",\"dependsOn\":[" substr(needs[order[i]], 2) "]}" \
                (i + 1 < count ? "," : "")
        print "]}"
    }'
