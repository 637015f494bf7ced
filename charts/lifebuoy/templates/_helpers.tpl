{{/* The prefix of every name. */}}
{{- define "lifebuoy.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "lifebuoy.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Labels that tell the pods of one Deployment; takes a list: context, role. */}}
{{- define "lifebuoy.selectorLabels" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: {{ $context.Chart.Name }}
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The roles of this mode: one Deployment, one ServiceAccount each. */}}
{{- define "lifebuoy.roles" -}}
{{- if eq .Values.mode "Both" -}}backup,restore{{- else -}}{{ lower .Values.mode }}{{- end -}}
{{- end -}}

{{- define "lifebuoy.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "lifebuoy.priorityClassName" -}}
{{- if .Values.priorityClass.create -}}{{ include "lifebuoy.fullname" . }}{{- else -}}{{ .Values.priorityClass.name }}{{- end -}}
{{- end -}}

{{/* Where movers run: a namespace of their own. */}}
{{- define "lifebuoy.moverNamespace" -}}
{{- $name := .Values.movers.namespace.name | default (printf "%s-movers" .Release.Namespace) -}}
{{- if eq $name .Release.Namespace -}}
{{- fail "movers.namespace.name: movers need a namespace of their own: whoever may do something with them must not be able to do it with the operator" -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "lifebuoy.moverAccount" -}}
{{ printf "%s-mover" (include "lifebuoy.fullname" .) }}
{{- end -}}

{{/* Rules for the Lease of a leader; takes a list: context, name of the Lease. */}}
{{- define "lifebuoy.leaseRules" }}
# The Lease of the leader. A rule for `create` cannot name the object.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ index . 1 }}]
  verbs: [get, patch, update]
{{- end -}}
