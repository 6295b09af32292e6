# shellcheck shell=bash
# Functions for scripts that need Debian packages: source this file, then call
#
#   install_listed LIST...      every package in packaging/dependencies/LIST that is not installed yet
#   install_needed PACKAGE...   the same for packages named one by one
#
# What is installed is told in one line on stdout; apt's own output is shown only when it failed.
# Both return 0 when all packages are there, else 1. A missing package needs root and apt.

_dependency_lists=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/dependencies

install_listed() {
    local list packages
    for list in "$@"; do
        if [[ ! -r $_dependency_lists/$list ]]; then
            echo "install_listed: no list of packages named $list" >&2
            return 1
        fi
    done
    mapfile -t packages < <(cd -- "$_dependency_lists" && sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' -- "$@")
    install_needed "${packages[@]}"
}

install_needed() {
    local package missing=()
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' -- "$package" 2>&1) == installed ]] || missing+=("$package")
    done
    if [[ ${#missing[@]} -eq 0 ]]; then
        return 0
    fi

    echo "Installing with apt-get: ${missing[*]}"
    local updated installed
    local -a apt_get=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300)
    # An unreachable third-party source fails the update but need not fail the installation, which has the last word.
    updated=$("${apt_get[@]}" update 2>&1) || true
    if ! installed=$("${apt_get[@]}" install --yes --no-install-recommends -- "${missing[@]}" 2>&1 </dev/null); then
        printf '%s\n%s\n' "$updated" "$installed" >&2
        echo "These packages could not be installed: ${missing[*]}" >&2
        return 1
    fi
}
