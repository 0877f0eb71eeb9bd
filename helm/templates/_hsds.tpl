{{/* An HSDS of a file server's own, as containers that start before it and end after it; argument: the root. */}}

{{- define "cropduster.hsds.containers" -}}
{{- $v := .Values -}}
{{- $h := $v.hsdsSidecar -}}
{{- $nodes := list (dict "name" "head" "type" "head_node" "port" 5100) (dict "name" "sn" "type" "sn" "port" 5101) -}}
{{- range $number := until (int $h.dataNodes) -}}
{{- $nodes = append $nodes (dict "name" (printf "dn%d" (add1 $number)) "type" "dn" "port" (add 6101 $number)) -}}
{{- end -}}
{{- range $node := $nodes }}
- name: hsds-{{ $node.name }}
  image: {{ $h.image | quote }}
  restartPolicy: Always
  securityContext: {{- include "cropduster.container.security" $ | nindent 4 }}
  env:
    - {name: NODE_TYPE, value: {{ $node.type }}}
    - {name: TARGET_SN_COUNT, value: "1"}
    - {name: TARGET_DN_COUNT, value: {{ int $h.dataNodes | quote }}}
    {{- if eq $node.type "dn" }}
    - {name: DN_PORT, value: {{ $node.port | quote }}}
    {{- end }}
    - {name: BUCKET_NAME, value: {{ $h.bucket | quote }}}
    - {name: PASSWORD_FILE, value: {{ printf "/run/secrets/hsds/%s" $h.passwords.key | quote }}}
    - {name: LOG_LEVEL, value: WARN}
    - {name: HOME, value: /tmp}
    {{- range $name, $value := $h.env }}
    - {name: {{ $name }}, value: {{ $value | quote }}}
    {{- end }}
    {{- range $name, $from := $h.secrets }}
    - name: {{ $name }}
      valueFrom:
        secretKeyRef: {name: {{ $from.secret | quote }}, key: {{ $from.key | quote }}}
    {{- end }}
  resources: {{- toYaml $h.resources | nindent 4 }}
  volumeMounts:
    - {name: scratch, mountPath: /tmp, subPath: hsds-{{ $node.name }}}
    - {name: hsds, mountPath: /run/secrets/hsds, readOnly: true}
    {{- range $plane, $_ := $v.volumes }}
    - {name: {{ printf "plane-%s" $plane | replace "_" "-" }}, mountPath: {{ printf "/planes/%s" $plane }}}
    {{- end }}
{{- end }}
{{- end }}
