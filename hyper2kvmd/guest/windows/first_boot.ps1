# Runs once in a migrated Windows guest, as the service hyper2kvm-first-boot, and removes itself.
#
# What to do is below the key of the service, and comes from there as data only. A step is tried three times at most, over
# all boots together. Nothing here restarts the machine. Works with PowerShell 2.0 and later.

$ErrorActionPreference = 'Stop'
$service = 'hyper2kvm-first-boot'
$services = 'SYSTEM\CurrentControlSet\Services'
$network = 'SYSTEM\CurrentControlSet\Control\Network\{4D36E972-E325-11CE-BFC1-08002BE10318}'
$parameters = "$services\$service\Parameters"
$drivers = Join-Path $env:SystemRoot 'Drivers\VirtIO'
$agent = Join-Path $env:SystemRoot 'System32\config\hyper2kvm-qemu-ga.msi'
$result = Join-Path $env:SystemRoot 'hyper2kvm-first-boot.txt'
$machine = [Microsoft.Win32.Registry]::LocalMachine
$most = 3
$succeeded = 0, 3010
$nothingToDo = 259, 1605

function Write-Result([string]$text) {
    $line = '{0:yyyy-MM-dd HH:mm:ss} {1}' -f (Get-Date), $text
    [IO.File]::AppendAllText($result, "$line`r`n")
}

function Read-Value([string]$path, [string]$name) {
    $key = $machine.OpenSubKey($path)
    if ($key -eq $null) { return }
    $value = $key.GetValue($name)
    $key.Close()
    return $value
}

function Write-Number([string]$path, [string]$name, [int]$number) {
    $key = $machine.CreateSubKey($path)
    $key.SetValue($name, $number, [Microsoft.Win32.RegistryValueKind]::DWord)
    $key.Close()
}

function Read-Names([string]$path) {
    $key = $machine.OpenSubKey($path)
    if ($key -eq $null) { return }
    $names = $key.GetSubKeyNames()
    $key.Close()
    return $names
}

function Copy-Values([string]$from, [string]$to) {
    $source = $machine.OpenSubKey($from)
    if ($source -eq $null) { return }
    $target = $machine.CreateSubKey($to)
    foreach ($name in $source.GetValueNames()) {
        $value = $source.GetValue($name, $null, [Microsoft.Win32.RegistryValueOptions]::DoNotExpandEnvironmentNames)
        $target.SetValue($name, $value, $source.GetValueKind($name))
    }
    $target.Close()
    $source.Close()
}

# ---------------------------------------------------------------- network

function Find-Adapter([string]$mac) {
    $found = $null
    foreach ($one in @(Get-WmiObject -Class Win32_NetworkAdapter)) {
        if ($one.MACAddress -eq $mac -and $one.PNPDeviceID -like 'PCI\*') { $found = $one }
    }
    return $found
}

function Wait-Adapter([string]$mac) {
    # its driver may be being installed
    for ($second = 0; $second -lt 180; $second += 5) {
        $found = Find-Adapter $mac
        if ($found -ne $null) { return $found }
        Start-Sleep -Seconds 5
    }
    throw "no network adapter has the MAC address $mac"
}

function Rename-Connection($adapter, [string]$old, [string]$name) {
    if ($adapter.NetConnectionID -eq $name) { return }
    try {
        # the adapter of the old machine still has the name
        $path = "$network\$old\Connection"
        if ($old -and (Read-Value $path 'Name') -eq $name) {
            $key = $machine.OpenSubKey($path, $true)
            $key.SetValue('Name', "$name (before the migration)")
            $key.Close()
        }
        $adapter.NetConnectionID = $name
        [void]$adapter.Put()
    } catch {
        Write-Result "network: the connection keeps the name $($adapter.NetConnectionID): $_"
    }
}

function Test-Addresses([string]$path, [int]$index) {
    if ((Read-Value "$path\Tcpip" 'EnableDHCP') -ne 0) { return $true }
    $wanted = @(Read-Value "$path\Tcpip" 'IPAddress')
    for ($second = 0; $second -lt 30; $second += 3) {
        $now = @((Get-WmiObject -Class Win32_NetworkAdapterConfiguration -Filter "Index=$index").IPAddress)
        if (@($wanted | Where-Object { $now -notcontains $_ }).Count -eq 0) { return $true }
        Start-Sleep -Seconds 3
    }
    return $false
}

function Set-Addresses([string]$path, [int]$index) {
    $configuration = Get-WmiObject -Class Win32_NetworkAdapterConfiguration -Filter "Index=$index"
    [string[]]$addresses = @(Read-Value "$path\Tcpip" 'IPAddress')
    [string[]]$masks = @(Read-Value "$path\Tcpip" 'SubnetMask')
    [string[]]$gateways = @(Read-Value "$path\Tcpip" 'DefaultGateway' | Where-Object { $_ })
    $listed = [string](Read-Value "$path\Tcpip" 'NameServer')
    [string[]]$servers = @($listed -split '[, ]+' | Where-Object { $_ })
    $code = $configuration.EnableStatic($addresses, $masks).ReturnValue
    if ($code -gt 1) { throw "Windows refuses the addresses $addresses with the code $code" }
    if ($gateways) { [void]$configuration.SetGateways($gateways) }
    if ($servers) { [void]$configuration.SetDNSServerSearchOrder($servers) }
}

function Set-Adapter([string]$path) {
    $adapter = Wait-Adapter (Read-Value $path 'Mac')
    $old = Read-Value $path 'Guid'
    $guid = $adapter.GUID
    if ($guid -ne $old) {
        Copy-Values "$path\Tcpip" "$services\Tcpip\Parameters\Interfaces\$guid"
        Copy-Values "$path\Tcpip6" "$services\Tcpip6\Parameters\Interfaces\$guid"
        Copy-Values "$path\NetBT" "$services\NetBT\Parameters\Interfaces\Tcpip_$guid"
        $name = Read-Value $path 'Name'
        if ($name) { Rename-Connection $adapter $old $name }
        [void]$adapter.Disable()
        Start-Sleep -Seconds 3
        [void]$adapter.Enable()
    }
    if (-not (Test-Addresses $path $adapter.Index)) {
        Set-Addresses $path $adapter.Index
        if (-not (Test-Addresses $path $adapter.Index)) { throw "the addresses are not in force" }
    }
    Write-Result "network: $($adapter.MACAddress) has its settings"
}

function Step-Network {
    $failed = @()
    foreach ($name in @(Read-Names "$parameters\Network")) {
        try { Set-Adapter "$parameters\Network\$name" } catch { $failed += "${name}: $_" }
    }
    if ($failed) { throw ($failed -join '; ') }
}

# ---------------------------------------------------------------- programs

function Start-Program([string]$program, [string]$arguments, [int[]]$good) {
    $process = Start-Process -FilePath (Join-Path $env:SystemRoot "System32\$program") -ArgumentList $arguments `
        -Wait -PassThru -WindowStyle Hidden
    if ($good -notcontains $process.ExitCode) { throw "$program ended with the code $($process.ExitCode)" }
    if ($process.ExitCode -eq 3010) { Write-Result "${program}: Windows has to be restarted to finish" }
}

function Step-Drivers {
    Start-Program 'pnputil.exe' "-i -a `"$drivers\*.inf`"" ($succeeded + $nothingToDo)
}

function Step-Agent {
    Start-Program 'msiexec.exe' "/i `"$agent`" /qn /norestart" $succeeded
}

function Step-Tools {
    foreach ($place in 'SOFTWARE', 'SOFTWARE\WOW6432Node') {
        $uninstall = "$place\Microsoft\Windows\CurrentVersion\Uninstall"
        foreach ($name in @(Read-Names $uninstall)) {
            if ((Read-Value "$uninstall\$name" 'DisplayName') -ne 'VMware Tools') { continue }
            if ($name -notmatch '^\{[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}$') { continue }
            Start-Program 'msiexec.exe' "/x $name /qn /norestart REBOOT=ReallySuppress" ($succeeded + $nothingToDo)
        }
    }
}

# ---------------------------------------------------------------- all steps

function Start-Step([string]$step) {
    switch ($step) {
        'drivers' { Step-Drivers }
        'network' { Step-Network }
        'tools' { Step-Tools }
        'agent' { Step-Agent }
        default { throw 'this step is not known' }
    }
}

function Complete-Step([string]$step) {
    while ($true) {
        $tries = [int](Read-Value "$parameters\Tries" $step) + 1
        if ($tries -gt $most) { break }
        Write-Number "$parameters\Tries" $step $tries
        try {
            Start-Step $step
            Write-Number "$parameters\Done" $step 1
            Write-Result "${step}: done"
            return
        } catch {
            Write-Result "${step}: try $tries of ${most} failed: $_"
            if ($tries -lt $most) { Start-Sleep -Seconds 20 }
        }
    }
    Write-Result "${step}: given up after $most tries"
}

$failed = @()
try {
    foreach ($step in @(Read-Value $parameters 'Steps')) {
        if (-not (Read-Value "$parameters\Done" $step)) { Complete-Step $step }
        if (-not (Read-Value "$parameters\Done" $step)) { $failed += $step }
    }
    if ($failed) { Write-Result "finished with failures: $($failed -join ', ')" } else { Write-Result 'finished' }
} finally {
    $agentIsInstalled = Read-Value "$parameters\Done" 'agent'
    Start-Process -FilePath (Join-Path $env:SystemRoot 'System32\sc.exe') -ArgumentList "delete $service" -Wait -WindowStyle Hidden
    if ($agentIsInstalled) { Remove-Item -LiteralPath $agent -ErrorAction SilentlyContinue }
    Remove-Item -LiteralPath $MyInvocation.MyCommand.Path -ErrorAction SilentlyContinue
}
