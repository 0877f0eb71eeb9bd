{{/* What the pods of the file servers and of the jobs have in common; arguments: the root. */}}

{{- define "cropduster.pod.security" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "cropduster.container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "cropduster.env" -}}
- {name: CROPDUSTER_CONFIG, value: /etc/cropduster/config.yaml}
- {name: HOME, value: /tmp}
- {name: XDG_RUNTIME_DIR, value: /run/cropduster}
{{- if .Values.database.secret }}
- name: CROPDUSTER_DATABASE
  valueFrom:
    secretKeyRef: {name: {{ .Values.database.secret | quote }}, key: {{ .Values.database.urlKey | quote }}}
{{- end }}
{{- range $name, $from := .Values.env }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {name: {{ $from.secret | quote }}, key: {{ $from.key | quote }}}
{{- end }}
{{- range $name, $value := .Values.extraEnv }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{/* Scratch space and mounted secrets; the root file system is read-only. */}}
{{- define "cropduster.mounts" -}}
- {name: config, mountPath: /etc/cropduster, readOnly: true}
- {name: scratch, mountPath: /tmp, subPath: tmp}
- {name: scratch, mountPath: /run/cropduster, subPath: run}
{{- range $name, $_ := .Values.files }}
- {name: {{ printf "file-%s" $name }}, mountPath: {{ printf "/run/secrets/%s" $name }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "cropduster.volumes" -}}
- name: scratch
  emptyDir: {}
{{- range $name, $from := .Values.files }}
- name: {{ printf "file-%s" $name }}
  secret: {secretName: {{ $from.secret | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}
