# fish completion for wgd-protected-resource, made by packaging/completion/generate.py from the program's own parser
complete -c wgd-protected-resource -f
complete -c wgd-protected-resource -l help -d 'show this help message and exit'
complete -c wgd-protected-resource -l listen -d 'where to listen' -x
complete -c wgd-protected-resource -l version -d 'show program\'s version number and exit'
