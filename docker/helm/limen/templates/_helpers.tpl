{{- define "limen.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "limen.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "limen.labels" -}}
{{ include "limen.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "limen.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* what cannot be served together is refused before anything is installed */}}
{{- define "limen.check" -}}
{{- $several := or (gt (int .Values.replicas) 1) .Values.autoscaling.enabled }}
{{- if and $several (not .Values.database.secret) (not .Values.readOnly) }}
{{- fail "several pods share their items in PostgreSQL: set database.secret, or readOnly, or replicas: 1 without autoscaling" }}
{{- end }}
{{- if not (or .Values.keys.secret .Values.database.secret) }}
{{- fail "a service that other pods reach needs keys: set keys.secret (docs/deploy.md says how to make it), or keep them in the database" }}
{{- end }}
{{- if and .Values.readOnly .Values.database.secret }}
{{- fail "readOnly pods write nothing: leave out database.secret" }}
{{- end }}
{{- if and .Values.galleries .Values.database.secret }}
{{- range $name, $gallery := .Values.galleries }}
{{- if hasKey $gallery "database_url" }}
{{- fail (printf "galleries.%s: an address with a password belongs in a secret: galleries keep their items in the data volume here" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "limen.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "limen.containerSecurity" -}}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
{{- end }}

{{- define "limen.databaseEnv" -}}
- name: LIMEN_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.database.secret | quote }}, key: {{ .Values.database.key | quote }}}}
{{- end }}
