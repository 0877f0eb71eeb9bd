{{/* What a schema cannot see: values that contradict each other. Each is refused with a sentence that says the way out. */}}

{{- define "cropduster.checks" -}}
{{- include "cropduster.checks.replicas" . -}}
{{- include "cropduster.checks.planes" . -}}
{{- include "cropduster.checks.callers" . -}}
{{- include "cropduster.checks.hsds" . -}}
{{- include "cropduster.checks.agents" . -}}
{{- $m := .Values.metrics -}}
{{- if and (not $m.enabled) (or $m.serviceMonitor.enabled $m.rules.enabled $m.dashboard.enabled) -}}
{{- fail "metrics.enabled is false, so there is nothing to monitor: switch it on, or metrics.serviceMonitor, rules and dashboard off" -}}
{{- end -}}
{{- include "cropduster.checks.references" (list . "config" .Values.config) -}}
{{- end }}

{{- define "cropduster.checks.replicas" -}}
{{- $v := .Values -}}
{{- $database := $v.database.secret -}}
{{- if and (gt (int $v.replicas) 1) (not $database) -}}
{{- fail (printf "replicas is %d, but file servers share transfers through PostgreSQL only: set database.secret to a Secret that holds its URL, or replicas to 1" (int $v.replicas)) -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (not $database) -}}
{{- fail "autoscaling.enabled makes several file servers, which share transfers through PostgreSQL only: set database.secret to a Secret that holds its URL, or switch autoscaling off" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas is %d and maxReplicas %d: the least is not more than the most" (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and $v.postgres.enabled (not $database) -}}
{{- fail (printf "postgres.enabled starts a PostgreSQL, and nobody knows its password: make a Secret with a password and the URL postgresql://cropduster:PASSWORD@%s-postgres/cropduster, and name it as database.secret" (include "cropduster.name" .)) -}}
{{- end -}}
{{- if and $v.postgres.enabled (not $v.migration.enabled) -}}
{{- fail "postgres.enabled starts a PostgreSQL that is empty, and no file server works with that: switch migration.enabled on" -}}
{{- end -}}
{{- if and $v.autoscaling.segments (not $v.autoscaling.enabled) -}}
{{- fail (printf "autoscaling.segments is %d, but autoscaling is off: switch autoscaling.enabled on, or leave it out" (int $v.autoscaling.segments)) -}}
{{- end -}}
{{- if and $v.autoscaling.segments (not $v.metrics.rules.enabled) -}}
{{- fail "autoscaling.segments goes by a number that metrics.rules records for Prometheus: switch metrics.rules.enabled on" -}}
{{- end -}}
{{- if and $database $v.state.claim -}}
{{- fail "state.claim is for a single file server without a database: with database.secret every replica has a directory of its own, so leave it out" -}}
{{- end -}}
{{- end }}

{{- define "cropduster.checks.planes" -}}
{{- $v := .Values -}}
{{- $planes := $v.config.planes | default dict -}}
{{- $several := or $v.autoscaling.enabled (gt (int $v.replicas) 1) -}}
{{- if and $v.database.secret (not $planes) -}}
{{- fail "with database.secret the file servers need planes that all of them see: name at least one in config.planes, like lake: {type: s3, bucket: lake}" -}}
{{- end -}}
{{- range $name, $plane := $planes -}}
  {{- if and (eq $plane.type "posix") (not $plane.hosts) (not $plane.host_group) -}}
    {{- $volume := regexFind "^/planes/[^/]+" (printf "%v" $plane.path) | trimPrefix "/planes/" -}}
    {{- if has ".." (splitList "/" (printf "%v" $plane.path)) -}}
    {{- fail (printf "config.planes.%s.path is %v: write it without .., as /planes/%s and what is below" $name $plane.path $name) -}}
    {{- end -}}
    {{- if not (hasKey $v.volumes $volume) -}}
    {{- fail (printf "config.planes.%s.path is %v, where no volume is mounted, and the rest of the file system is read-only: name a claim as volumes.%s, and set the path to /planes/%s" $name $plane.path $name $name) -}}
    {{- end -}}
    {{- if and $v.database.secret (not $plane.shared) -}}
    {{- fail (printf "config.planes.%s is a directory, and with a database any file server may work on it: say shared: true if its volume is one that all of them mount (ReadWriteMany), else use a store" $name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $name, $volume := $v.volumes -}}
  {{- if eq (empty $volume.claim) (empty $volume.size) -}}
  {{- fail (printf "volumes.%s needs either claim, the name of a PersistentVolumeClaim that is there, or size, of one that is made" $name) -}}
  {{- end -}}
  {{- if and $several $volume.size (ne ($volume.accessMode | default "ReadWriteMany") "ReadWriteMany") -}}
  {{- fail (printf "volumes.%s is %s, and several file servers are to mount it, which may run on several nodes: it must be ReadWriteMany" $name $volume.accessMode) -}}
  {{- end -}}
{{- end -}}
{{- with $v.config.default_plane -}}
  {{- if not (hasKey $planes .) -}}
  {{- fail (printf "config.default_plane is %s, but config.planes has no plane of that name" .) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $server := ($v.config.hsds | default dict) -}}
  {{- if and $server.storage (not (hasKey $planes $server.storage)) -}}
  {{- fail (printf "config.hsds.%s.storage is %s, but config.planes has no plane of that name" $name $server.storage) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{- define "cropduster.checks.callers" -}}
{{- $v := .Values -}}
{{- $external := include "cropduster.tls.external" . -}}
{{- range $side, $tls := dict "internal" $v.tls.internal "external" $v.tls.external -}}
  {{- if and $tls.secret $tls.issuer.name -}}
  {{- fail (printf "tls.%s has a secret and an issuer: name the Secret if it is there, or who is to issue it, not both" $side) -}}
  {{- end -}}
{{- end -}}
{{- if and $external (not $v.config.tokens) -}}
{{- fail "tls.external opens the external address, and its callers show tokens: say in config.tokens whose, as keys or issuers" -}}
{{- end -}}
{{- if and $v.config.tokens (not $external) -}}
{{- fail "config.tokens is about callers of the external address, which is closed: give it a certificate as tls.external.secret or tls.external.issuer" -}}
{{- end -}}
{{- if and $v.envoy.enabled (not $external) -}}
{{- fail "envoy stands before the external address, which is closed: give it a certificate as tls.external.secret or tls.external.issuer" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $external) -}}
{{- fail "ingress leads to the external address, which is closed: give it a certificate as tls.external.secret or tls.external.issuer" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- fail "ingress.host is missing: gRPC is told apart by the name of the host" -}}
{{- end -}}
{{- $several := or $v.autoscaling.enabled (gt (int $v.replicas) 1) -}}
{{- if and $several (not (include "cropduster.tls.internal" .)) -}}
{{- fail "several file servers take parts of each other's transfers, by certificates: give them one as tls.internal.secret or tls.internal.issuer" -}}
{{- end -}}
{{- end }}

{{- define "cropduster.checks.agents" -}}
{{- $v := .Values -}}
{{- $a := $v.agents -}}
{{- if $a.enabled -}}
{{- if or (not $a.namespace) (eq $a.namespace .Release.Namespace) -}}
{{- fail "agents mount folders of their nodes, which a namespace has to allow: name one of their own as agents.namespace" -}}
{{- end -}}
{{- if not $a.folders -}}
{{- fail "agents serve folders of their nodes, and none is named: set agents.folders, like {thor: /var/lib/thor}" -}}
{{- end -}}
{{- range $plane, $_ := $a.folders -}}
  {{- $there := dig $plane dict ($v.config.planes | default dict) -}}
  {{- if not (or $there.hosts $there.host_group) -}}
  {{- fail (printf "agents.folders.%s is of a plane that has no hosts: set config.planes.%s: {type: posix, hosts: [NODE, …]}" $plane $plane) -}}
  {{- end -}}
{{- end -}}
{{- if eq (empty $a.token) (empty $a.certificate) -}}
{{- fail "agents show a token to the external address or a certificate to the internal one: name one Secret of their namespace, as agents.token or agents.certificate" -}}
{{- end -}}
{{- if and $a.token (not (include "cropduster.tls.external" .)) (not $a.server) -}}
{{- fail "agents.token is for the external address, which is closed: give it a certificate as tls.external.secret or tls.external.issuer" -}}
{{- end -}}
{{- $serving := false -}}
{{- range $v.config.rules -}}
  {{- $serving = or $serving (has "serve" (.may | default list)) -}}
{{- end -}}
{{- if and $a.token (not $a.server) (not $serving) -}}
{{- fail "agents.token makes nobody the agent of a host without a rule: add {who: [NAME], may: [serve], hosts: [NODE, …]} to config.rules" -}}
{{- end -}}
{{- if and $a.certificate (not (include "cropduster.tls.internal" .)) -}}
{{- fail "agents.certificate is for the internal address, which is closed: give it a certificate as tls.internal.secret or tls.internal.issuer" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "cropduster.checks.hsds" -}}
{{- $v := .Values -}}
{{- $servers := $v.config.hsds | default dict -}}
{{- if and (or $v.watches $v.writeTest.enabled) (not $servers) -}}
{{- fail (printf "%s is about HSDS, and config.hsds names no server" (ternary "watches" "writeTest" (not (empty $v.watches)))) -}}
{{- end -}}
{{- if and $v.writeTest.enabled $v.writeTest.target (not (hasKey $servers $v.writeTest.target)) -}}
{{- fail (printf "writeTest.target is %s, but config.hsds has no server of that name" $v.writeTest.target) -}}
{{- end -}}
{{- $h := $v.hsdsSidecar -}}
{{- if $h.enabled -}}
  {{- $called := false -}}
  {{- range $_, $server := $servers -}}
    {{- if hasPrefix "http://127.0.0.1:5101" (printf "%v" $server.endpoint) -}}{{- $called = true -}}{{- end -}}
  {{- end -}}
  {{- if not $called -}}
  {{- fail "hsdsSidecar starts an HSDS beside each file server, and nobody calls it: name it in config.hsds, with the endpoint http://127.0.0.1:5101" -}}
  {{- end -}}
  {{- if not (and $h.image $h.bucket $h.passwords.secret) -}}
  {{- fail "hsdsSidecar needs an image of HSDS, a bucket, and the Secret with its passwords: set hsdsSidecar.image, .bucket and .passwords.secret" -}}
  {{- end -}}
  {{- if not $v.networkPolicy.enabled -}}
  {{- fail "the data nodes of hsdsSidecar answer whoever reaches them, without asking who that is: switch networkPolicy.enabled on" -}}
  {{- end -}}
{{- end -}}
{{- if and $v.writeTest.enabled (include "cropduster.secrets" (list . $servers)) -}}
{{- fail "writeTest runs in pods that may ask Kubernetes for nothing, and config.hsds names a secret as {kubernetes: …}: name it as {env: NAME} or {file: PATH}" -}}
{{- end -}}
{{- if and $v.watches (not (include "cropduster.tls.internal" .)) -}}
{{- fail "watches are set up through the Service NAME-internal, which is closed: give it a certificate as tls.internal.secret or tls.internal.issuer" -}}
{{- end -}}
{{- range $name, $watch := $v.watches -}}
  {{- $plane := splitList ":" $watch.source | first -}}
  {{- if not (hasKey ($v.config.planes | default dict) $plane) -}}
  {{- fail (printf "watches.%s.source is %s, but config.planes has no plane %s" $name $watch.source $plane) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* Every secret that the config names must come from somewhere; argument: a list of the root, a path, and what is there. */}}
{{- define "cropduster.checks.references" -}}
{{- $root := index . 0 -}}
{{- $path := index . 1 -}}
{{- $here := index . 2 -}}
{{- if kindIs "slice" $here -}}
  {{- range $number, $value := $here -}}
    {{- include "cropduster.checks.references" (list $root (printf "%s.%d" $path $number) $value) -}}
  {{- end -}}
{{- else if kindIs "map" $here -}}
  {{- with $here.env -}}
    {{- if and (kindIs "string" .) (not (hasKey $root.Values.env .)) -}}
    {{- fail (printf "%s is to be found in the environment variable %s, which the pod does not have: say which Secret it comes from, as env.%s: {secret: NAME, key: KEY}" $path . .) -}}
    {{- end -}}
  {{- end -}}
  {{- range $key, $value := $here -}}
    {{- $at := printf "%s.%s" $path $key -}}
    {{- if not (kindIs "string" $value) -}}
      {{- include "cropduster.checks.references" (list $root $at $value) -}}
    {{- else if has $at (list "config.log.file" "config.audit.file") -}}
      {{- fail (printf "%s is %s, and a pod keeps no files: leave it out, then the lines go where Kubernetes collects them" $at $value) -}}
    {{- else if or (has $key (list "file" "ca")) (eq $path "config.tokens.keys") -}}
      {{- $name := regexFind "^/run/secrets/[^/]+/[^/]+$" $value | trimPrefix "/run/secrets/" | dir -}}
      {{- if not (hasKey $root.Values.files $name) -}}
      {{- fail (printf "%s is %s, where nothing is mounted: mount a Secret as files.NAME: {secret: SECRET}, and write /run/secrets/NAME/KEY" $at $value) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end }}
